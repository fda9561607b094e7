"""Whether a point beats simple rivals, and whether a task pays for it: paired bootstraps over records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from selfpos.positioning.folds import Folds
from selfpos.scores import examples
from selfpos.scores.intervals import percentile_interval, sign_flip
from selfpos.tasks.measure import TaskMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfpos.positioning.linearisation import Linearisation

Items = dict[str, dict[str, "NDArray"]]
"""Task → what its measure is computed from, one value a record."""

LEVEL = 0.9  # of every interval
RESAMPLES = 200  # of the records, behind the intervals of gains
NAMED = 12  # rivals at most that a sentence names, the nearest
WORSE = 0.05  # chance that some task of an equal model is called worse than one of the references
REFERENCES = 2  # the base and the tuned scale


@dataclass(frozen=True)
class Rival:
    """A simple alternative on the same records, and the position's mean gain over it.

    `low` and `high` are the 90 % interval of the gain.
    """

    name: str
    scores: dict[str, float]
    gain: float
    low: float
    high: float


class Gain(NamedTuple):
    """Position less reference, and the interval of that."""

    value: float
    low: float
    high: float


class TaskMeasures:
    """Each task's own measure on all records of the folds."""

    def __init__(self, folds: Folds) -> None:
        self.folds = folds
        self.measures = {name: folds.probes[name].measure(batch) for name, batch in folds.batches.items()}
        self.rows = {name: folds.table.rows(measure.texts) for name, measure in self.measures.items()}

    def items(self, embeddings: Tensor) -> Items:
        """Of embeddings (P, d) of the folds' texts."""
        return {name: measure.items(embeddings[self.rows[name]]) for name, measure in self.measures.items()}

    @torch.no_grad()
    def cross_fitted(
        self, around: Linearisation, by_fold: Sequence[Tensor], point: Tensor, embeddings: Tensor
    ) -> Items:
        """Each record at the point that was found without its fold.

        The linearisation gives the difference to `point`, whose embeddings are true, so its error is that of
        a short way.
        """
        at_point = around.predicted(point)
        fitted_at = [self.items(embeddings + around.predicted(other) - at_point) for other in by_fold]
        fitted: Items = {}
        for name, task in self.folds.tasks.items():
            folds = task.folds.numpy()
            fitted[name] = {}
            for key in fitted_at[0][name]:
                values = np.stack([items[name][key] for items in fitted_at])
                fitted[name][key] = values[folds, np.arange(len(folds))]
        return fitted

    def below(self, items: Items, reference: Items, seed: int) -> list[str]:
        """The tasks whose measure is significantly lower than at `reference`; none that the base taught."""
        alpha = 2 * WORSE / (REFERENCES * len(self.measures))
        draws = max(5 * RESAMPLES, ceil(2 / alpha))  # fewer could show no p below alpha
        names = []
        for name, measure in self.measures.items():
            if measure.of_base:
                continue
            if _gain({name: measure}, items, reference, seed, alpha, draws).high < 0:
                names.append(name)
        return names


def scores_of(measures: Mapping[str, TaskMeasure], items: Items) -> dict[str, float]:
    """The measures of all tasks."""
    return {name: measure.score_of(items[name], None) for name, measure in measures.items()}


def _gain(
    measures: Mapping[str, TaskMeasure], items: Items, reference: Items, seed: int, alpha: float, draws: int
) -> Gain:
    """The mean gain over `reference` with its 1 − `alpha` interval, which has 0 in it unless a test of signs
    over the records agrees: a few records that differ never show a gain, however often they are drawn.
    """
    ours, theirs = scores_of(measures, items), scores_of(measures, reference)
    value = sum(ours[task] - theirs[task] for task in measures) / len(measures)
    gains = [
        resampled(measure, items[task], task, seed, draws)
        - resampled(measure, reference[task], task, seed, draws)
        for task, measure in measures.items()
    ]
    low, high = percentile_interval(np.mean(gains, axis=0), alpha)
    by_record = [contributions(items[task]) - contributions(reference[task]) for task in measures]
    if sign_flip(np.concatenate(by_record), draws, seed) >= alpha:
        low, high = min(low, 0.0), max(high, 0.0)
    return Gain(value, low, high)


def contributions(items: Mapping[str, NDArray]) -> NDArray:
    """What each record adds to its task's measure, (n,): of a mean its value, else the pseudo-value of the
    jackknife; each over n.
    """
    values = next(iter(items.values()))
    if len(items) == 1:
        finite = np.isfinite(values)
        return np.where(finite, values, 0.0) / max(1, finite.sum())
    pairs = _pairs(items)
    return examples.contributions(pairs, pairs.count) / pairs.count


def _pairs(items: Mapping[str, NDArray]) -> examples.Examples:
    """Pairs as examples, whose measure takes all draws at once."""
    cosines, target = items["cosines"], items["target"]
    kind = "average-precision" if np.issubdtype(target.dtype, np.integer) else "spearman"
    return examples.Examples("", "", kind, len(target), "", {"scores": cosines, "gold": target})


def resampled(
    measure: TaskMeasure, items: Mapping[str, NDArray], task: str, seed: int, draws: int = RESAMPLES
) -> NDArray:
    """The measure of one task on draws of its records, (draws,): of one seed the same for all points."""
    size = len(next(iter(items.values())))
    rng = np.random.default_rng([seed, crc32(task.encode())])
    rows = rng.integers(size, size=(draws, size))
    if len(items) > 1:
        times = np.array([np.bincount(drawn, minlength=size) for drawn in rows], float)
        return examples.measure_of(_pairs(items))(times)
    if np.isfinite(values := next(iter(items.values()))).all():
        return values[rows].mean(axis=1)
    return np.array([measure.score_of(items, drawn) for drawn in rows])


def compare(
    measures: Mapping[str, TaskMeasure], position: Items, points: Mapping[str, Items], seed: int
) -> list[Rival]:
    """Each of `points`, name → items, as a rival of `position`."""
    rivals = []
    for name, items in points.items():
        scores = scores_of(measures, items)
        gain = _gain(measures, position, items, seed, 1 - LEVEL, RESAMPLES)
        rivals.append(Rival(name, scores, gain.value, gain.low, gain.high))
    return rivals


def verdict(rivals: Sequence[Rival], records: str) -> str:
    """One sentence: which rivals the position clearly beats on `records`."""
    equal = [rival for rival in rivals if rival.low <= 0]
    if not equal:
        nearest = min(rivals, key=lambda rival: rival.gain)
        few = len(rivals) <= NAMED
        names = ", ".join(rival.name for rival in rivals) if few else f"all {len(rivals)} rivals"
        return (
            f"better than {names} on {records}; the nearest is {nearest.name}, "
            f"{100 * nearest.gain:.1f} points below on average"
        )
    few = len(equal) <= NAMED
    named = equal if few else sorted(equal, key=lambda rival: rival.gain)[:NAMED]
    names = ", ".join(
        f"{rival.name} ({100 * rival.gain:+.1f} points, {100 * rival.low:+.1f} to {100 * rival.high:+.1f})"
        for rival in named
    )
    names += "" if few else f" and {len(equal) - NAMED} others"
    return f"not clearly better than {names} on {records}: prefer the simpler model, or give a larger probe"
