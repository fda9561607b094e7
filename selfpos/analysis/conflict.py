"""Whether two tasks pull the weights apart: the cosine of their gradients, and how sure one can be of it from a few batches.

The inner product of two tasks' batches is an unbiased estimate of that of their whole gradients, but a batch's squared length is that of the gradient
plus that of its noise, so that the cosine of noisy gradients leans towards zero. Squared lengths are therefore estimated by inner products of different
batches of one task. Intervals are those of the jackknife over batches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairConflict:
    """Two tasks at one point. `cosine` of their gradients with its 95 % interval `low`..`high`, None where a gradient is lost in its noise;
    `raw_cosine` of the mean gradients as they are; `share` of the pairs of batches whose gradients point apart (inner product below zero)."""

    tasks: tuple[str, str]
    cosine: float | None
    low: float | None
    high: float | None
    raw_cosine: float
    share: float

    @property
    def conflicting(self) -> bool:
        """Whether they pull apart, and not by chance: the whole interval is below zero."""
        return self.high is not None and self.high < 0


@dataclass(frozen=True)
class TaskGradient:
    """One task at one point: the `norm` of its gradient without its noise (0 when lost in it), and the share of a batch's squared length that is signal."""

    norm: float
    signal: float


def pair_conflicts(gram: np.ndarray, owners: Sequence[str]) -> list[PairConflict]:
    """Every pair of tasks, from the inner products (n, n) of batch gradients; `owners` names the task of each. Each task needs as many batches, 2 or more."""
    rows = _rows(owners)
    counts = {len(found) for found in rows.values()}
    if len(counts) != 1 or counts.pop() < 2:
        raise ValueError("every task needs the same number of batches, 2 or more")
    found = []
    for first, second in itertools.combinations(rows, 2):
        own, other, cross = (
            _block(gram, rows[first]),
            _block(gram, rows[second]),
            gram[np.ix_(rows[first], rows[second])],
        )
        cosine, interval = _cosine(own, other, cross), _interval(own, other, cross)
        lengths = own.mean() * other.mean()
        raw = float(cross.mean() / math.sqrt(lengths)) if lengths > 0 else 0.0
        low, high = interval if cosine is not None and interval is not None else (None, None)
        found.append(PairConflict((first, second), cosine, low, high, raw, float((cross < 0).mean())))
    return found


def task_gradients(gram: np.ndarray, owners: Sequence[str]) -> dict[str, TaskGradient]:
    """Every task's gradient from the inner products of its batches, as for `pair_conflicts`."""
    found = {}
    for task, rows in _rows(owners).items():
        own = _block(gram, rows)
        squared, whole = _squared(own), float(np.trace(own)) / len(rows)
        found[task] = TaskGradient(
            math.sqrt(max(0.0, squared)), max(0.0, squared) / whole if whole > 0 else 0.0
        )
    return found


def _rows(owners: Sequence[str]) -> dict[str, list[int]]:
    return {
        task: [row for row, owner in enumerate(owners) if owner == task] for task in dict.fromkeys(owners)
    }


def _block(gram: np.ndarray, rows: list[int]) -> np.ndarray:
    return gram[np.ix_(rows, rows)]


def _squared(own: np.ndarray) -> float:
    """Squared length of the mean gradient, without bias: the mean inner product of different batches."""
    count = len(own)
    return float((own.sum() - np.trace(own)) / (count * (count - 1)))


def _cosine(own: np.ndarray, other: np.ndarray, cross: np.ndarray) -> float | None:
    lengths = _squared(own), _squared(other)
    if min(lengths) <= 0:
        return None
    return float(np.clip(cross.mean() / math.sqrt(lengths[0] * lengths[1]), -1, 1))


def _interval(own: np.ndarray, other: np.ndarray, cross: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the cosine by the jackknife: batches of both tasks are left out two by two, one of each. None below three batches each."""
    from scipy.stats import t

    count = len(own)
    if count < 3:
        return None
    estimates = []
    for left in range(count):
        kept = [row for row in range(count) if row != left]
        places = np.ix_(kept, kept)
        estimates.append(_cosine(own[places], other[places], cross[places]))
    known = [value for value in estimates if value is not None]
    whole = _cosine(own, other, cross)
    if len(known) < count or whole is None:
        return None
    spread = math.sqrt((count - 1) / count * sum((value - sum(known) / count) ** 2 for value in known))
    margin = float(t.ppf(0.975, count - 1)) * spread
    return max(-1.0, whole - margin), min(1.0, whole + margin)
