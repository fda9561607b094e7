"""How sure a result is: intervals of coefficients, and whether the position beats the simple alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from selfpos.positioning.linearised import Linearisation
from selfpos.positioning.selection import Measurement, Selection

if TYPE_CHECKING:
    from selfpos.positioning.live import LiveModel

GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # λ of tuned task arithmetic
LEVEL = 0.9  # of every interval
HALVES = 20  # random halves behind the intervals of coefficients: enough for 5 % quantiles
RESAMPLES = 200  # of the validation records, behind the intervals of gains
REACH = 1.0  # trust region in which the halves are solved


@dataclass(frozen=True)
class Rival:
    """A simple alternative on the same validation records: its scores, and the position's mean gain over it.

    `low` and `high` are the 90 % interval of the gain.
    """

    name: str
    scores: dict[str, float]
    gain: float
    low: float
    high: float


def coefficient_spread(around: Linearisation, count: int, seed: int) -> list[tuple[float, float]]:
    """How far each coefficient may lie below and above the solution: 90 % intervals from `count` random
    halves.

    The linearised objective is solved on each half. Halves without repeats, because a record drawn twice
    would be its own false negative. The solution of a half deviates from that of the whole as the whole's
    deviates from the truth (subsampling at half the size: Politis and Romano, Annals of Statistics 22, 1994),
    so the quantiles of the differences make the interval.
    """
    solution, _ = around.minimise(around.batches, REACH)
    whole = around.problem.mean_coefficients(solution)
    differences = []
    for number in range(count):
        generator = torch.Generator().manual_seed(seed + number)
        half = [batch.part(0.5, generator) for batch in around.batches]
        parameters, _ = around.minimise(half, REACH, solution)
        differences.append((around.problem.mean_coefficients(parameters) - whole).numpy())
    low, high = np.quantile(np.array(differences), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [(float(0.0 - above), float(0.0 - below)) for below, above in zip(low, high, strict=True)]


def compare(live: LiveModel, selection: Selection, position: Measurement, *, seed: int) -> list[Rival]:
    """The base, each specialist, and tuned task arithmetic, each against the measurement `position`.

    λ of task arithmetic has the best mean measure on the same records, even where a task falls below the
    base: the verdict is about means, and this is the strongest rival.
    """
    count = len(live.vectors)

    def at(coefficients: Sequence[float]) -> Measurement:
        row = torch.tensor(coefficients, dtype=torch.float64)
        live.set_coefficients(row.expand(len(live.keys), count))
        return selection.measure(live)

    points = [("base", selection.base or at([0.0] * count))]
    for index, vector in enumerate(live.vectors):
        points.append((vector.name, at([float(other == index) for other in range(count)])))
    scaled = {scale: at([scale] * count) for scale in GRID}
    best = max(scaled, key=lambda scale: sum(scaled[scale].scores.values()))
    points.append((f"task arithmetic {best:g}", scaled[best]))
    rivals = []
    for name, point in points:
        gain = sum(position.scores[task] - score for task, score in point.scores.items()) / len(point.scores)
        rivals.append(Rival(name, point.scores, gain, *gain_interval(selection, position, point, seed)))
    return rivals


def gain_interval(
    selection: Selection, position: Measurement, other: Measurement, seed: int
) -> tuple[float, float]:
    """90 % interval of the mean measure of `position` less that of `other`, resampling both alike."""
    rng = np.random.default_rng(seed)
    draws = np.zeros(RESAMPLES)
    for task, measure in selection.measures.items():
        size = len(next(iter(position.items[task].values())))
        for number in range(RESAMPLES):
            rows = rng.integers(size, size=size)
            ours, theirs = (measure.score_of(point.items[task], rows) for point in (position, other))
            draws[number] += ours - theirs
    low, high = np.quantile(draws / len(selection.measures), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def verdict(rivals: Sequence[Rival]) -> str:
    """One sentence: which rivals the position clearly beats, on the records that it was selected by."""
    equal = [rival for rival in rivals if rival.low <= 0]
    if not equal:
        least = min(rivals, key=lambda rival: rival.gain)
        return (
            "better than base, specialists and task arithmetic on the validation part, "
            "by which it was chosen; "
            f"the nearest is {least.name}, {100 * least.gain:.1f} points below on average"
        )
    names = ", ".join(
        f"{rival.name} ({100 * rival.gain:+.1f} points, {100 * rival.low:+.1f} to {100 * rival.high:+.1f})"
        for rival in equal
    )
    return (
        f"not clearly better than {names} on the validation part: "
        "prefer the simpler model, or give a larger probe"
    )
