"""Linear layers on a CPU by oneDNN, from weights packed once, and GELU within the product: the numbers of torch's own layers but for the last bits.

A CPU spends nine tenths of an encoder's time in its linear layers. torch computes them by MKL from weights as they lie in the file, and the GELU after
the widest of them in a pass of its own through memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Packed weights are a second copy; larger models are left as they are.
MOST_BYTES = 2_000_000_000
# Rows of the products that the packing is made for; others are right, too.
ROWS = 2048


@contextmanager
def packed_layers(model: torch.nn.Module) -> Iterator[int]:
    """While the block runs, the float32 linear layers of `model` are computed by oneDNN; yields how many. None where `model` is not on a CPU,
    torch has no oneDNN or not these operators of it, or the model is too large."""
    import torch

    linear = [module for module in model.modules() if type(module) is torch.nn.Linear]
    fit = all(layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 for layer in linear)
    small = sum(layer.weight.nbytes for layer in linear) <= MOST_BYTES
    changed: list[torch.nn.Module] = []
    if (
        fit
        and small
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        inner = {}
        for module in model.modules():
            if _is_linear_and_gelu(module):
                inner[module.dense] = module
        for layer in linear:
            place = inner.get(layer, layer)
            place.forward = _product(layer, "none" if place is layer else "gelu")
            changed.append(place)
    try:
        yield len(changed)
    finally:
        for place in changed:
            del place.forward


def _is_linear_and_gelu(module: Any) -> bool:
    """Whether `module` is what BERT and its family call the intermediate layer, with the exact GELU."""
    import torch

    if type(module).__name__.endswith("Intermediate") and {name for name, _ in module.named_children()} == {
        "dense",
        "intermediate_act_fn",
    }:
        return (
            type(module.dense) is torch.nn.Linear
            and getattr(module.intermediate_act_fn, "act", None) is torch.nn.functional.gelu
        )
    return False


def _product(layer: torch.nn.Linear, then: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """x·Wᵀ + b of a layer, and the exact GELU (by erf) of that where `then` is "gelu", for x of shape (…, in)."""
    import torch

    weights = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    def forward(x: torch.Tensor) -> torch.Tensor:
        rows = torch.ops.mkldnn._linear_pointwise(
            x.reshape(-1, x.shape[-1]), weights, layer.bias, then, [], "none"
        )
        return rows.view(*x.shape[:-1], rows.shape[-1])

    return forward
