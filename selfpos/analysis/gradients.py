"""Inner products of many gradients of one model. Only some tensors' gradients are in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from torch import Tensor, nn

COLUMNS = 1 << 16  # columns multiplied at once in float64: 0.5 MB a gradient


class ParameterSlice(NamedTuple):
    """A range of a flattened parameter."""

    key: str
    start: int
    stop: int


def gradient_products(
    parameters: Mapping[str, nn.Parameter],
    losses: Sequence[Callable[[], Tensor]],
    *,
    memory: int = 1 << 30,
    after_pass: Callable[[], object] = lambda: None,
) -> dict[str, np.ndarray]:
    """<∇L_a, ∇L_b> of n losses at every parameter: key → (n, n) float64.

    Each of `losses` computes one loss with its graph; parameters that none reaches get zeros. `memory` is how
    many bytes of gradients are held at once: with less, each loss is computed again for the next parameters.
    `after_pass` is called after every backward pass. Raises SelfposError for a loss that is not finite.
    """
    count = len(losses)
    products = {key: np.zeros((count, count)) for key in parameters}
    required = {key: parameter.requires_grad for key, parameter in parameters.items()}
    try:
        for slices in passes(
            {key: parameter.numel() for key, parameter in parameters.items()}, count, memory
        ):
            keys = {part.key for part in slices}
            for key, parameter in parameters.items():
                parameter.requires_grad_(key in keys)
            held = {part: np.zeros((count, part.stop - part.start), np.float32) for part in slices}
            for row, loss in enumerate(losses):
                gradients = _gradients(loss(), {key: parameters[key] for key in sorted(keys)})
                for part in held.keys() & {part for part in slices if part.key in gradients}:
                    flat = gradients[part.key].detach().reshape(-1)[part.start : part.stop]
                    held[part][row] = flat.float().cpu().numpy()
                after_pass()
            for part, rows in held.items():
                for start in range(0, rows.shape[1], COLUMNS):
                    block = rows[:, start : start + COLUMNS].astype(np.float64)
                    products[part.key] += block @ block.T
    finally:
        for key, parameter in parameters.items():
            parameter.requires_grad_(required[key])
    return products


def _gradients(loss: Tensor, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The gradients of `loss` at those of the parameters that it reaches."""
    import torch

    if not torch.isfinite(loss):
        raise SelfposError(
            f"a loss is {loss.item()}, so it has no gradient: check the records, or raise the temperature"
        )
    if not loss.requires_grad:  # it reaches none of the parameters of this pass
        return {}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        key: gradient for key, gradient in zip(parameters, gradients, strict=True) if gradient is not None
    }


def passes(sizes: Mapping[str, int], count: int, memory: int) -> list[list[ParameterSlice]]:
    """All parameters, in order, in slices of which `count` float32 gradients fit in `memory` bytes."""
    budget = max(1, memory // (4 * max(1, count)))
    groups: list[list[ParameterSlice]] = [[]]
    remaining = budget
    for key, size in sizes.items():
        start = 0
        while start < size:
            stop = min(size, start + remaining)
            groups[-1].append(ParameterSlice(key, start, stop))
            remaining -= stop - start
            start = stop
            if remaining == 0:
                groups.append([])
                remaining = budget
    return [group for group in groups if group]
