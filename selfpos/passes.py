"""What makes forward passes fast: batches of a budget of tokens, and linear layers packed once.

On processors with AVX-512 linear layers are computed by oneDNN, from weights packed once, with GELU within
the product, which is faster there; with AVX2 alone torch's own layers are. The results are torch's but for
the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

# Tokens in one batch, padding included. On a CPU a layer's widest output must be small: of 2048 tokens
# all-MiniLM-L6-v2 makes 12 MB, which the C library gives back to the system and fetches again, page by page,
# in each layer; that takes a tenth of the time. A GPU needs more to be busy.
BUDGET = {"cpu": 1024}
BUDGET_ELSEWHERE = 32768
# Short texts may be many in a batch: tokens cost, not texts.
MOST_TEXTS = 256
TOKENISED_AT_ONCE = 256  # texts of like length, padded to the longest
# `torch.ops.mkldnn._*` are private operators; tests/test_passes.py says when torch changes them.
MOST_BYTES = 2_000_000_000  # packed weights are a second copy: larger models are left as they are
ROWS = 1024  # of the products that the packing is optimised for; others are correct, too
OPERATORS = ("_linear_pointwise", "_reorder_linear_weight")


def budget_of(device: torch.device) -> int:
    """Tokens of one batch on `device`."""
    return BUDGET.get(device.type, BUDGET_ELSEWHERE)


def batches(lengths: Sequence[int], budget: int, most: int = MOST_TEXTS) -> Iterator[list[int]]:
    """Indices of `lengths`, longest first, in batches of at most `most` texts and `budget` padded tokens."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        count = min(most, max(1, budget // max(1, lengths[order[start]])))
        yield order[start : start + count]
        start += count


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of `items`, evenly spread."""
    count = min(most, len(items))
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]


@contextmanager
def packed_layers(model: torch.nn.Module) -> Iterator[int]:
    """While the block runs, compute the float32 linear layers of `model` by oneDNN; yields how many.

    0 where `model` is not on a CPU with AVX-512 or too large, or torch lacks oneDNN or its operators.
    """
    layers = [module for module in model.modules() if type(module) is torch.nn.Linear]
    usable = torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()
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
    # a hook of the layer, as that of an adapter beside it, runs where the layer is called
    return gelu and type(module.dense) is torch.nn.Linear and not module.dense._forward_hooks


def _product(layer: torch.nn.Linear, then: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """x·Wᵀ + b of a layer for x of shape (…, in); with `then` "gelu", the exact GELU (by erf) of it."""
    weights = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        rows = torch.ops.mkldnn._linear_pointwise(rows, weights, layer.bias, then, [], "none")
        return rows.view(*x.shape[:-1], rows.shape[-1])

    return forward
