"""Linear layers on a CPU by oneDNN, from weights packed once, with GELU within the product.

The results are those of torch's layers except for the last bits. Without this file, scoring all-MiniLM-L6-v2
takes 1.15 to 1.22 times the CPU time (MLQuestions, STSBenchmark; one thread). `torch.ops.mkldnn._*` are
private operators; tests/evaluation/test_packed.py says when torch changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

MOST_BYTES = 2_000_000_000  # packed weights are a second copy: larger models are left as they are
ROWS = 2048  # of the products that the packing is optimised for; others are correct, too
OPERATORS = ("_linear_pointwise", "_reorder_linear_weight")


@contextmanager
def packed_layers(model: torch.nn.Module) -> Iterator[int]:
    """While the block runs, compute the float32 linear layers of `model` by oneDNN; yields how many.

    0 where `model` is not on a CPU or too large, or torch lacks oneDNN or its operators.
    """
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear]
    usable = torch.backends.mkldnn.is_available()
    usable &= all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)
    usable &= all(layer.weight.device.type == "cpu" for layer in layers)
    usable &= all(layer.weight.dtype == torch.float32 for layer in layers)
    usable &= sum(layer.weight.nbytes for layer in layers) <= MOST_BYTES
    changed: list[torch.nn.Module] = []
    if usable:
        with_gelu = {module.dense: module for module in model.modules() if _is_linear_with_gelu(module)}
        for layer in layers:
            module = with_gelu.get(layer, layer)
            module.forward = _product(layer, "none" if module is layer else "gelu")
            changed.append(module)
    try:
        yield len(changed)
    finally:
        for module in changed:
            del module.forward


def _is_linear_with_gelu(module: Any) -> bool:
    """Whether `module` is the intermediate layer of BERT and its relatives, with the exact GELU."""
    children = {name for name, _ in module.named_children()}
    if not type(module).__name__.endswith("Intermediate") or children != {"dense", "intermediate_act_fn"}:
        return False
    gelu = getattr(module.intermediate_act_fn, "act", None) is torch.nn.functional.gelu
    return gelu and type(module.dense) is torch.nn.Linear


def _product(layer: torch.nn.Linear, then: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """x·Wᵀ + b of a layer for x of shape (…, in); with `then` "gelu", the exact GELU (by erf) of it."""
    weights = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        rows = torch.ops.mkldnn._linear_pointwise(rows, weights, layer.bias, then, [], "none")
        return rows.view(*x.shape[:-1], rows.shape[-1])

    return forward
