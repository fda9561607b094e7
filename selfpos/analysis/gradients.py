"""Gradient conflict: the cosine of two tasks' gradients, with an interval from a few batches.

The squared length of a batch's gradient adds that of the noise, which pulls the cosine towards zero. So
squared lengths come from inner products of different batches of one task. Intervals are by the jackknife over
batches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    """<∇L_a, ∇L_b> of n losses at every parameter: key → (n, n) float64; zeros where no loss reaches it.

    `memory` is how many bytes of gradients are held at once: with less, each loss is computed again for the
    next parameters. `after_pass` is called after every backward pass.
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
            gradients_of_part = {
                part: np.zeros((count, part.stop - part.start), np.float32) for part in slices
            }
            for row, loss in enumerate(losses):
                gradients = _gradients(loss(), {key: parameters[key] for key in sorted(keys)})
                for part in gradients_of_part.keys() & {part for part in slices if part.key in gradients}:
                    flat = gradients[part.key].detach().reshape(-1)[part.start : part.stop]
                    gradients_of_part[part][row] = flat.float().cpu().numpy()
                after_pass()
            for part, rows in gradients_of_part.items():
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
    named = zip(parameters, gradients, strict=True)
    return {key: gradient for key, gradient in named if gradient is not None}


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


@dataclass(frozen=True)
class PairConflict:
    """Two tasks at one set of weights: the `cosine` of their gradients with its 95 % interval.

    None where noise hides a gradient. `raw_cosine` is that of the mean gradients, `share` that of pairs of
    batches with a negative inner product.
    """

    tasks: tuple[str, str]
    cosine: float | None
    low: float | None
    high: float | None
    raw_cosine: float
    share: float

    @property
    def conflicting(self) -> bool:
        return self.high is not None and self.high < 0


@dataclass(frozen=True)
class TaskGradient:
    """`norm` of a task's gradient without noise; `signal`, its share of a batch's squared length."""

    norm: float
    signal: float


def pair_conflicts(gram: np.ndarray, tasks: Sequence[str]) -> list[PairConflict]:
    """Every pair of tasks, from the inner products (n, n) of n batch gradients and the task of each batch."""
    rows = _rows(tasks)
    counts = {len(indices) for indices in rows.values()}
    if len(counts) != 1 or counts.pop() < 2:
        raise ValueError("every task needs the same number of batches, 2 or more")
    conflicts = []
    for first, second in itertools.combinations(rows, 2):
        pairs = ((first, first), (second, second), (first, second))
        blocks = [gram[np.ix_(rows[a], rows[b])] for a, b in pairs]
        cosine = _cosine(*blocks)
        low, high = (None, None) if cosine is None else _interval(cosine, *blocks)
        cross = blocks[2]
        lengths = blocks[0].mean() * blocks[1].mean()
        raw = float(cross.mean() / math.sqrt(lengths)) if lengths > 0 else 0.0
        conflicts.append(PairConflict((first, second), cosine, low, high, raw, float((cross < 0).mean())))
    return conflicts


def task_gradients(gram: np.ndarray, tasks: Sequence[str]) -> dict[str, TaskGradient]:
    """The gradient of every task, from the same inner products as `pair_conflicts`."""
    gradients = {}
    for task, rows in _rows(tasks).items():
        block = gram[np.ix_(rows, rows)]
        squared = max(0.0, _squared_length(block))
        with_noise = float(np.trace(block)) / len(rows)
        gradients[task] = TaskGradient(math.sqrt(squared), squared / with_noise if with_noise > 0 else 0.0)
    return gradients


def _rows(tasks: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        rows.setdefault(task, []).append(index)
    return rows


def _squared_length(block: np.ndarray) -> float:
    """Squared length of the mean gradient, without bias: the mean inner product of different batches."""
    count = len(block)
    return float((block.sum() - np.trace(block)) / (count * (count - 1)))


def _cosine(first: np.ndarray, second: np.ndarray, cross: np.ndarray) -> float | None:
    lengths = _squared_length(first), _squared_length(second)
    if min(lengths) <= 0:
        return None
    return float(np.clip(cross.mean() / math.sqrt(lengths[0] * lengths[1]), -1, 1))


def _interval(
    cosine: float, first: np.ndarray, second: np.ndarray, cross: np.ndarray
) -> tuple[float | None, float | None]:
    """95 % interval of the cosine by the jackknife over batches; None below three batches of a task."""
    from scipy.stats import t

    count = len(first)
    if count < 3:
        return None, None
    estimates = []
    for left_out in range(count):
        rest = np.ix_(*[[row for row in range(count) if row != left_out]] * 2)
        estimate = _cosine(first[rest], second[rest], cross[rest])
        if estimate is None:
            return None, None
        estimates.append(estimate)
    mean = sum(estimates) / count
    deviation = math.sqrt((count - 1) / count * sum((value - mean) ** 2 for value in estimates))
    margin = float(t.ppf(0.975, count - 1)) * deviation
    return max(-1.0, cosine - margin), min(1.0, cosine + margin)
