"""How sure a result is: intervals of coefficients, and whether the position beats what can be had without a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from selfpos.positioning.judge import Judge, Judgement
from selfpos.positioning.linearised import Linearisation

if TYPE_CHECKING:
    from selfpos.positioning.live import LiveModel

GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # λ of tuned task arithmetic
LEVEL = 0.9  # of every interval
RESAMPLES = 200  # of the validation records, behind the intervals of gains
REACH = 1.0  # trust region in which the halves are solved


@dataclass(frozen=True)
class Rival:
    """A simple alternative on the same validation records: its scores, and what the position gains over it on average, with a 90 % interval."""

    name: str
    scores: dict[str, float]
    gain: float
    low: float
    high: float


def coefficient_intervals(
    around: Linearisation, found: Sequence[float], count: int, seed: int
) -> list[tuple[float, float]]:
    """90 % intervals about the coefficients `found` (N,), from `count` random halves of the records solved in the linearised objective.

    Halves without repeats, because a record drawn twice would be its own false negative. The solution of a half strays from that of the
    whole as the whole's strays from the truth (subsampling at half the size: Politis and Romano, Annals of Statistics 22, 1994), so the
    quantiles of the differences make the interval.
    """
    solution, _ = around.minimise(around.batches, REACH)
    whole = around.problem.mean_coefficients(solution)
    differences = []
    for number in range(count):
        generator = torch.Generator().manual_seed(seed + number)
        halves = [batch.part(0.5, generator) for batch in around.batches]
        differences.append(
            (around.problem.mean_coefficients(around.minimise(halves, REACH, solution)[0]) - whole).numpy()
        )
    low, high = np.quantile(np.array(differences), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [(float(c - above), float(c - below)) for c, below, above in zip(found, low, high, strict=True)]


def compare(live: LiveModel, judge: Judge, found: Judgement, *, seed: int) -> list[Rival]:
    """The base, each specialist, and task arithmetic with its λ tuned on the same validation records, each against the judgement `found`.

    λ has the best mean measure, whether or not a task falls below the base there: the verdict is on means, and its hardest rival the honest one.
    """
    count = len(live.vectors)

    def at(coefficients: Sequence[float]) -> Judgement:
        live.place(torch.tensor(coefficients, dtype=torch.float64).expand(len(live.keys), count))
        return judge.measure(live)

    points = [("base", judge.base or at([0.0] * count))]
    for place, vector in enumerate(live.vectors):
        points.append((vector.name, at([float(other == place) for other in range(count)])))
    scaled = {scale: at([scale] * count) for scale in GRID}
    best = max(scaled, key=lambda scale: sum(scaled[scale].scores.values()))
    points.append((f"task arithmetic {best:g}", scaled[best]))
    return [_rival(name, judge, point, found, seed) for name, point in points]


def gain_interval(judge: Judge, found: Judgement, other: Judgement, seed: int) -> tuple[float, float]:
    """90 % interval of the mean measure of `found` less that of `other`, by drawing the same validation records again for both."""
    rng = np.random.default_rng(seed)
    draws = np.zeros(RESAMPLES)
    for task, measure in judge.measures.items():
        size = len(next(iter(found.items[task].values())))
        for number in range(RESAMPLES):
            chosen = rng.integers(size, size=size)
            draws[number] += measure.score_of(found.items[task], chosen) - measure.score_of(
                other.items[task], chosen
            )
    low, high = np.quantile(draws / len(judge.measures), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _rival(name: str, judge: Judge, point: Judgement, found: Judgement, seed: int) -> Rival:
    gain = sum(found.scores[task] - score for task, score in point.scores.items()) / len(point.scores)
    return Rival(name, point.scores, gain, *gain_interval(judge, found, point, seed))


def verdict(rivals: Sequence[Rival]) -> str:
    """One sentence: which rivals the position is clearly better than, and which not; on the records by which it was chosen, which flatters it."""
    equal = [rival for rival in rivals if rival.low <= 0]
    if not equal:
        least = min(rivals, key=lambda rival: rival.gain)
        return (
            f"better than base, specialists and task arithmetic on the validation part, by which it was chosen; "
            f"the nearest is {least.name}, {100 * least.gain:.1f} points below on average"
        )
    found = ", ".join(
        f"{rival.name} ({100 * rival.gain:+.1f} points, {100 * rival.low:+.1f} to {100 * rival.high:+.1f})"
        for rival in equal
    )
    return f"not clearly better than {found} on the validation part: prefer the simpler model, or give a larger probe"
