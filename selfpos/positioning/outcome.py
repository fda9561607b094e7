"""What a search came to: the point after its tasks are checked, and how it stands beside simple rivals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from selfpos.console import log
from selfpos.positioning.folds import FOLDS
from selfpos.positioning.selection import Measurement, Selection
from selfpos.positioning.verdict import LEVEL, Items, Rival, TaskMeasures, compare, scores_of, verdict

if TYPE_CHECKING:
    from selfpos.positioning.linearised import LinearisedSearch
    from selfpos.positioning.problem import Problem

GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # λ of tuned task arithmetic, where the search tunes no scale
REACH = 1.0  # trust region in which a point with ceilings is solved
SHARES = (1.0, 0.5, 0.25, 0.0)  # of the way from the tuned scale to the solution with ceilings


@dataclass(frozen=True)
class Outcome:
    """What is known of the point kept; see `Position`. `parameters` are None for those of the search."""

    parameters: Tensor | None = None
    losses: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    scale: float | None = None
    pull: float | None = None
    intervals: list[tuple[float, float]] | None = None
    rivals: list[Rival] = field(default_factory=list)
    verdict: str | None = None


class _TaskCheck:
    """Keeps a point at which no task's measure is significantly below the base's or the tuned scale's."""

    def __init__(self, search: LinearisedSearch, measures: TaskMeasures, seed: int) -> None:
        self.search, self.measures, self.seed = search, measures, seed
        self.scaled = search.uniform(search.scale)
        self.embeddings = {"the base": search.known["base"], "the tuned scale": search.known["scale"]}
        self.references = {name: measures.items(values) for name, values in self.embeddings.items()}

    def worse(self, embeddings: Tensor) -> list[str]:
        """The tasks that are significantly worse than at one of the references.

        Agreement with a teacher is nearly free of noise: every trade between tasks is a significant loss of
        one. So taught tasks are compared with the base alone.
        """
        items = self.measures.items(embeddings)
        below = {
            name: self.measures.below(items, reference, self.seed)
            for name, reference in self.references.items()
        }
        return [
            task
            for task in self.measures.measures
            if any(task in below[name] for name in self._references_of(task))
        ]

    def _references_of(self, task: str) -> list[str]:
        return ["the base"] if self.measures.measures[task].taught else list(self.references)

    def below_scale(self, embeddings: Tensor) -> bool:
        """Whether the mean over all tasks is significantly lower than at the tuned scale."""
        scale = {"the tuned scale": self.references["the tuned scale"]}
        (rival,) = compare(self.measures.measures, self.measures.items(embeddings), scale, self.seed)
        return rival.high < 0

    def scale(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The tuned scale, its embeddings, and the scales tuned without each fold."""
        around = self.search.around
        assert around is not None
        scales = [around.minimise(math.inf, REACH, fold=fold)[0] for fold in range(FOLDS)]
        return self.scaled, self.search.embed(self.scaled), scales

    def keep(self, point: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """`point` or one at which its tasks are no worse, its embeddings, and the same without each fold.

        Where a task is worse, its value at the references becomes its ceiling. Where that does not help, the
        points between this one and the tuned scale are tried.
        """
        search, around = self.search, self.search.around
        assert around is not None
        embeddings, by_fold = search.known["point"], search.by_fold
        tasks = self.worse(embeddings)
        if not tasks or math.isinf(search.pull):
            return self._warned(tasks, point, embeddings, by_fold)
        log.info("positioning: %s would be worse than at the base or one scale for all", ", ".join(tasks))
        solved, _ = around.minimise(search.pull, REACH, ceilings=self._ceilings(tasks, None))
        solved_by_fold = [
            around.minimise(search.pull, REACH, fold=fold, ceilings=self._ceilings(tasks, fold))[0]
            for fold in range(FOLDS)
        ]
        scales = [around.minimise(math.inf, REACH, fold=fold)[0] for fold in range(FOLDS)]
        first = None
        for share in SHARES:
            point = torch.lerp(self.scaled, solved, share)
            by_fold = [
                torch.lerp(scale, solution, share)
                for scale, solution in zip(scales, solved_by_fold, strict=True)
            ]
            embeddings = search.embed(point)
            tasks = self.worse(embeddings)
            if not tasks:
                return point, embeddings, by_fold
            first = first or (tasks, point, embeddings, by_fold)
        assert first is not None
        return self._warned(*first)

    def _warned(
        self, tasks: list[str], point: Tensor, embeddings: Tensor, by_fold: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        if tasks:
            log.warning(
                "task %s is worse than at the base or at one scale for all, and no point near by spares it: "
                "leave out a vector, or raise the task's weight in positioning.ratios",
                " and ".join(tasks),
            )
        return point, embeddings, by_fold

    def _ceilings(self, tasks: Sequence[str], fold: int | None) -> dict[str, float]:
        """The best value of each task at the references, of all records or of those outside `fold`."""
        folds = self.search.folds
        values = {name: folds.values(embeddings, fold) for name, embeddings in self.embeddings.items()}
        return {task: min(values[name][task].item() for name in self._references_of(task)) for task in tasks}


def outcome_of(search: LinearisedSearch, point: Tensor, seed: int) -> Outcome:
    """Check the tasks at `point`, move it where one pays for the others, and compare it with its rivals."""
    problem, around = search.problem, search.around
    assert around is not None
    measures = TaskMeasures(search.folds)
    check = _TaskCheck(search, measures, seed)
    point, embeddings, by_fold = check.keep(point)
    if not math.isinf(search.pull) and check.below_scale(embeddings):
        log.info("positioning: on average the point is worse than one scale for all, which is kept")
        point, embeddings, by_fold = check.scale()
    fitted = measures.cross_fitted(around, by_fold, point, embeddings)
    coefficients = problem.mean_coefficients(point)
    table = problem.table(point)
    uniform = len(problem.names) > 1 and float(table.max() - table.min()) < 1e-9
    rivals: list[Rival] = []
    sentence = f"kept one scale for all: {coefficients[0]:.2f}" if uniform else None
    if problem.settings.compare:
        points = {"base": check.references["the base"]}
        for index, name in enumerate(problem.names):
            points[name] = measures.items(problem.live.embed_by(index, search.folds.table.texts))
        _warn_of_unhelped(measures, points)
        if not uniform:
            points[f"one scale for all, {search.scale:.2f}"] = check.references["the tuned scale"]
        rivals = compare(measures.measures, fitted, points, seed)
        words = verdict(rivals, "records that did not choose it")
        sentence = f"{sentence}; {words}" if sentence else words
    intervals = _intervals(problem, coefficients, by_fold)
    if not uniform:
        _warn_of_idle(problem, coefficients, intervals)
    scores = scores_of(measures.measures, fitted)
    pull = None if uniform or math.isinf(search.pull) else search.pull
    return Outcome(point, search.losses(embeddings), scores, search.scale, pull, intervals, rivals, sentence)


def _intervals(problem: Problem, coefficients: Tensor, by_fold: list[Tensor]) -> list[tuple[float, float]]:
    """90 % intervals around the coefficients, by the jackknife over folds (Efron and Stein, 1981)."""
    from scipy.stats import t as student

    solutions = torch.stack([problem.mean_coefficients(parameters) for parameters in by_fold])
    error = ((FOLDS - 1) / FOLDS * (solutions - solutions.mean(0)).square().sum(0)).sqrt()
    half = student.ppf((1 + LEVEL) / 2, FOLDS - 1) * error
    return list(zip((coefficients - half).tolist(), (coefficients + half).tolist(), strict=True))


def _warn_of_unhelped(measures: TaskMeasures, points: Mapping[str, Items]) -> None:
    """A sentence for each task whose measure no specialist raises."""
    for task, measure in measures.measures.items():
        base, *specialists = (measure.score_of(items[task], None) for items in points.values())
        if max(specialists) <= base < 1:
            log.warning(
                "no vector helps task %s: its measure on the probe is %.1f at the base and no higher at any "
                "specialist; look at its records, or leave it out of the probe",
                task,
                100 * base,
            )


def _warn_of_idle(problem: Problem, coefficients: Tensor, intervals: list[tuple[float, float]]) -> None:
    """A sentence for each vector whose coefficient is zero or less."""
    for name, coefficient, (low, high) in zip(problem.names, coefficients.tolist(), intervals, strict=True):
        if coefficient <= 0:
            log.warning(
                "vector %s helps no task: its coefficient is %.2f (%.2f to %.2f); leave it out",
                name,
                coefficient,
                low,
                high,
            )


def validated_outcome(problem: Problem, selection: Selection, point: Tensor, seed: int) -> Outcome:
    """The comparison of `point` on the validation part: base, specialists, and tuned task arithmetic.

    λ of task arithmetic has the best mean measure on the same records, even where a task falls below the
    base: the verdict is about means, and this is the strongest rival.
    """
    count = len(problem.names)

    def measured(coefficients: list[float]) -> Measurement:
        row = torch.tensor(coefficients, dtype=torch.float64)
        problem.live.set_coefficients(row.expand(len(problem.live.keys), count))
        return selection.measure(problem.live)

    points = {"base": (selection.base or measured([0.0] * count)).items}
    for index, name in enumerate(problem.names):
        points[name] = measured([float(other == index) for other in range(count)]).items
    scaled = {scale: measured([scale] * count) for scale in GRID}
    best = max(scaled, key=lambda scale: sum(scaled[scale].scores.values()))
    points[f"task arithmetic {best:g}"] = scaled[best].items
    problem.apply(point)
    position = selection.measure(problem.live)
    rivals = compare(selection.measures, position.items, points, seed)
    words = verdict(rivals, "the validation part, by which it was chosen")
    return Outcome(rivals=rivals, verdict=words)
