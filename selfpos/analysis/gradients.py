"""Inner products of many gradients of one model, without holding them all: some tensors at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from torch import Tensor, nn

Part = tuple[str, int, int]
"""(key, start, stop): a range of a flattened tensor."""

COLUMNS = 1 << 16  # of the gradients that are multiplied at once, in float64


def gradient_products(
    parameters: Mapping[str, nn.Parameter],
    losses: Sequence[Callable[[], Tensor]],
    *,
    memory: int = 1 << 30,
    each: Callable[[], object] = lambda: None,
) -> dict[str, np.ndarray]:
    """<∇L_a, ∇L_b> at every tensor: key → (n, n) float64, for n `losses`, each a function that computes one with a graph to the parameters.

    The losses' gradients are held for as many parameters at a time as fit in `memory` bytes (beside the model and one backward pass); the losses are
    computed again for the next ones. So memory is bounded whatever n and the model are, and n·⌈4·n·parameters/memory⌉ backward passes are made.
    `each` is called after every pass. A tensor that no loss reaches gets zeros. Raises SelfposError for a loss that is not finite.
    """
    import torch

    count = len(losses)
    found = {key: np.zeros((count, count)) for key in parameters}
    wanted = {key: parameter.requires_grad for key, parameter in parameters.items()}
    try:
        for parts in passes({key: parameter.numel() for key, parameter in parameters.items()}, count, memory):
            keys = {key for key, _, _ in parts}
            held = {part: np.zeros((count, part[2] - part[1]), np.float32) for part in parts}
            for key, parameter in parameters.items():
                parameter.requires_grad_(key in keys)
            for row, loss in enumerate(losses):
                value = loss()
                if not torch.isfinite(value):
                    raise SelfposError(
                        f"a loss is {value.item()}, so it has no gradient: check the records, or raise the temperature"
                    )
                names = (
                    sorted(keys) if value.requires_grad else []
                )  # none where the loss reaches none of this pass
                gradients = (
                    torch.autograd.grad(value, [parameters[key] for key in names], allow_unused=True)
                    if names
                    else []
                )
                by_key = dict(zip(names, gradients, strict=True))
                for part, rows in held.items():
                    gradient = by_key.get(part[0])
                    if gradient is not None:
                        rows[row] = gradient.detach().reshape(-1)[part[1] : part[2]].float().cpu().numpy()
                each()
            for part, rows in held.items():
                for start in range(0, rows.shape[1], COLUMNS):
                    piece = rows[:, start : start + COLUMNS].astype(np.float64)
                    found[part[0]] += piece @ piece.T
    finally:
        for key, parameter in parameters.items():
            parameter.requires_grad_(wanted[key])
    return found


def passes(sizes: Mapping[str, int], count: int, memory: int) -> list[list[Part]]:
    """All tensors, in order, in ranges of which `count` gradients in float32 fit in `memory` bytes at a time; a tensor may be split."""
    room = max(1, memory // (4 * max(1, count)))
    found: list[list[Part]] = [[]]
    left = room
    for key, size in sizes.items():
        start = 0
        while start < size:
            stop = min(size, start + left)
            found[-1].append((key, start, stop))
            left -= stop - start
            start = stop
            if left == 0:
                found.append([])
                left = room
    return [parts for parts in found if parts]
