"""The front between domain and general tasks, what a point keeps of the gain and undoes of the loss, and the
point that is taken under a promise. Nothing here embeds a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from selfpos.errors import SelfposError
from selfpos.positioning.verdict import Items, contributions
from selfpos.retention.judging import Judge, Side
from selfpos.retention.path import Place
from selfpos.scores.intervals import holm, percentile_interval, sign_flip

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDES: tuple[Side, Side] = ("domain", "general")
LEVEL = 0.05  # chance that an equal general task is called worse, over all of them together
CLEAR = 2.0  # standard errors below which a gain or a loss is taken for no larger than that
LEAST = 0.05  # share of the gain below which a point is no better than the base

Interval = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """A place with its scores by task, and what they are computed from."""

    place: Place
    scores: dict[str, float]
    items: Items


@dataclass(frozen=True)
class Drop:
    """How far a general task is below the base, and the one-sided p-value of it, adjusted by Holm.

    `worst` is how far at worst: a 95 % bound for all tasks together, by the normal distribution.
    """

    task: str
    difference: float
    p: float
    worst: float

    @property
    def clear(self) -> bool:
        """Whether it is significant."""
        return self.p < LEVEL


class Scale:
    """Points in shares of the way between `base` and `tuned`.

    A gain or loss within two standard errors counts as that much: a share of nothing would be noise.
    """

    def __init__(self, judge: Judge, base: Point, tuned: Point) -> None:
        self.judge, self.base, self.tuned = judge, base, tuned

    def mean(self, point: Point, side: Side) -> float:
        """The mean measure of one side's tasks."""
        names = self.judge.names(side)
        return sum(point.scores[name] for name in names) / len(names)

    def draws(self, point: Point, side: Side) -> NDArray:
        """That mean on resamples of the records, the same for all points."""
        names = self.judge.names(side)
        return np.mean([self.judge.resampled(point.items, name) for name in names], axis=0)

    def error(self, point: Point, other: Point, side: Side) -> float:
        """The standard error of the difference of two points."""
        return float((self.draws(point, side) - self.draws(other, side)).std(ddof=1))

    @cached_property
    def gain(self) -> float:
        """What the fine-tune gained on the domain."""
        return self.mean(self.tuned, "domain") - self.mean(self.base, "domain")

    @cached_property
    def loss(self) -> float:
        """What it lost on the general tasks."""
        return self.mean(self.base, "general") - self.mean(self.tuned, "general")

    @cached_property
    def errors(self) -> tuple[float, float]:
        """The standard errors of gain and loss."""
        gain, loss = (self.error(self.tuned, self.base, side) for side in SIDES)
        return gain, loss

    @property
    def learned(self) -> bool:
        """Whether the gain is clear."""
        return self.gain > CLEAR * self.errors[0]

    @property
    def forgot(self) -> bool:
        """Whether the loss is clear."""
        return self.loss > CLEAR * self.errors[1]

    @cached_property
    def units(self) -> tuple[float, float]:
        """Gain and loss as they are divided by."""
        gain, loss = (
            max(size, CLEAR * error) for size, error in zip((self.gain, self.loss), self.errors, strict=True)
        )
        return gain or 1.0, loss or 1.0

    def kept(self, point: Point) -> float:
        """The share of the domain's gain that a point keeps."""
        return (self.mean(point, "domain") - self.mean(self.base, "domain")) / self.units[0]

    def surely_kept(self, point: Point) -> float:
        """`kept`, less a standard error of the difference to the fine-tune.

        Of many points that seem to keep all, the best on the general tasks often keeps less on other records.
        """
        return self.kept(point) - self.error(point, self.tuned, "domain") / self.units[0]

    def undone(self, point: Point) -> float:
        """The share of the general loss that a point undoes; what it gains on the base comes on top."""
        return 1 + (self.mean(point, "general") - self.mean(self.base, "general")) / self.units[1]

    def value(self, point: Point) -> float:
        """Both shares together; where no loss is clear, what is surely kept of the gain.

        More than all of a gain or loss is worth no more than all.
        """
        if not self.forgot:
            return min(self.surely_kept(point), 1.0)
        return min(self.kept(point), 1.0) + min(self.undone(point), 1.0)

    def intervals(self, point: Point) -> tuple[Interval, Interval]:
        """95 % intervals of both shares over resamples of the records."""
        learned, forgot = (self.draws(self.tuned, side) - self.draws(self.base, side) for side in SIDES)
        gained, kept = (self.draws(point, side) - self.draws(self.base, side) for side in SIDES)
        gain, loss = self.units
        return (
            percentile_interval(gained / (np.maximum(learned, gain / 2) if self.learned else gain)),
            percentile_interval(1 + kept / (np.maximum(-forgot, loss / 2) if self.forgot else loss)),
        )

    def drops(self, point: Point) -> list[Drop]:
        """The general tasks that are significantly below the base, the clearest first."""
        return [drop for drop in self.below(point) if drop.clear]

    def below(self, point: Point) -> list[Drop]:
        """All general tasks against the base: a test of signs over the records, Holm.

        A task is below the base where it is further below than what is tolerated of it.
        """
        names = self.judge.names("general")
        draws = max(1000, 20 * len(names))  # enough for the p of one task to be significant after Holm
        quantile = NormalDist().inv_cdf(1 - LEVEL / len(names))
        differences, chances, worst = [], [], []
        for name in names:
            task = self.judge.tasks[name]
            lost = max(0.0, self.base.scores[name] - self.tuned.scores[name])
            beyond = contributions(point.items[name]) - self._base_contributions[name]
            beyond += task.tolerated * lost / len(beyond)
            differences.append(point.scores[name] - self.base.scores[name])
            worst.append(differences[-1] - quantile * float(beyond.std(ddof=1)) * len(beyond) ** 0.5)
            chances.append(sign_flip(beyond, draws, self.judge.seed) / 2 if beyond.sum() < 0 else 1.0)
        rows = zip(names, differences, holm(chances), worst, strict=True)
        return sorted((Drop(*row) for row in rows), key=lambda drop: (drop.p, drop.difference))

    @cached_property
    def _base_contributions(self) -> dict[str, NDArray]:
        names = self.judge.names("general")
        return {name: contributions(self.base.items[name]) for name in names}


def front(scale: Scale, points: Sequence[Point], most: int = 12) -> list[Point]:
    """The points that no other beats on both sides, from the most general to the most of the domain; of many,
    `most` that are evenly spread.
    """
    ordered = sorted(points, key=lambda p: (-scale.mean(p, "general"), -scale.mean(p, "domain")))
    kept: list[Point] = []
    best = -np.inf
    for point in ordered:
        if scale.mean(point, "domain") > best:
            best = scale.mean(point, "domain")
            kept.append(point)
    if len(kept) > most:
        kept = [kept[round(index)] for index in np.linspace(0, len(kept) - 1, most)]
    return kept


def choose(scale: Scale, points: Sequence[Point], keep: float | None) -> Point:
    """The point to take.

    With `keep`, the best general mean of those that surely keep so large a share of the gain; without, of
    those at which no general task is significantly below the base, the largest value, and of equal ones the
    best general mean.

    Raises:
        SelfposError: no point keeps the promise; the nearest is named, and the task in the way.
    """
    if keep is not None:
        holding = [point for point in points if scale.surely_kept(point) >= keep]
        if not holding:
            nearest = max(points, key=scale.surely_kept)
            raise SelfposError(
                f"no point keeps {keep:.0%} of the domain's gain; the nearest, at α = "
                f"{nearest.place.alpha:.2f}, keeps {scale.kept(nearest):.0%} "
                f"({scale.surely_kept(nearest):.0%} less a standard error): ask for less, or give more of "
                "the domain's records, which make the error smaller"
            )
        return max(holding, key=lambda point: scale.mean(point, "general"))
    ordered = [point for point in points if scale.kept(point) > LEAST]
    ordered.sort(key=lambda point: (scale.value(point), scale.mean(point, "general")), reverse=True)
    for point in ordered:
        if not scale.drops(point):
            return point
    if not ordered:
        raise SelfposError(
            "no point between base and fine-tune is clearly better on the domain than the base: give more of "
            "its records, or have the documents embedded again where the base's index was to be kept"
        )
    nearest = min(ordered, key=lambda point: point.place.alpha)
    drop = scale.below(nearest)[0]
    raise SelfposError(
        f"no point keeps the promise: task {drop.task} is in the way, {-100 * drop.difference:.1f} points "
        f"below the base at the nearest point, α = {nearest.place.alpha:.2f}; leave the task out, or ask for "
        "a share of the gain with --keep"
    )


def barriers(scale: Scale, line: Sequence[Point]) -> list[str]:
    """A sentence for each side that is worse between base and fine-tune than at both, on embedded points."""
    sentences = []
    words: dict[Side, str] = {"domain": "the domain falls", "general": "the general tasks fall"}
    for side, name in words.items():
        means = [scale.mean(point, side) for point in line]
        end = 0 if means[0] < means[-1] else len(line) - 1
        lowest = min(range(1, len(line) - 1), key=means.__getitem__)
        below = means[end] - means[lowest]
        if below > CLEAR * scale.error(line[lowest], line[end], side):
            sentences.append(
                f"there is a barrier on the way: at α = {line[lowest].place.alpha:g} {name} "
                f"{100 * below:.1f} points below the worse of base and fine-tune, as between models that "
                "share no base"
            )
    return sentences
