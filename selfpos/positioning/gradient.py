"""The gradient of Self Positioning: ∂L/∂c_i = <∇θL, V_i>, one inner product a tensor, taken as backward delivers the tensor's gradient.

V_p is linear in the coefficients, so an ordinary backward pass at the merged weights is all that is needed: no graph over the merge, one
model in memory whatever N is, and coefficients for each tensor at no extra cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from selfpos.positioning.deltas import Deltas


@contextmanager
def collect(parameters: Mapping[str, nn.Parameter], deltas: Deltas, count: int) -> Iterator[Tensor]:
    """Yield a float64 table (T, N) to which every backward pass in the block adds <∇θL, V_i> of each tensor; gradients are freed at once.

    N is `count`. The table lies on the parameters' device and may be zeroed in place between passes. A parameter that the loss does not
    reach stays at zero.
    """
    device = next(iter(parameters.values())).device
    table = torch.zeros(len(parameters), count, dtype=torch.float64, device=device)

    def hook_for(row: int, key: str) -> torch.utils.hooks.RemovableHandle:
        @torch.no_grad()
        def take(parameter: Tensor) -> None:
            gradient = parameter.grad
            assert gradient is not None  # autograd calls the hook just after storing it
            parameter.grad = None
            table[row] += deltas.products(key, gradient)

        return parameters[key].register_post_accumulate_grad_hook(take)

    handles = [hook_for(row, key) for row, key in enumerate(parameters)]
    try:
        yield table
    finally:
        for handle in handles:
            handle.remove()
