"""The comparison of models on tasks: scores, means, ranks, and differences to a baseline."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

import numpy as np

from selfpos.comparison.sources import Scored
from selfpos.errors import SelfposError, unknown
from selfpos.scores.examples import Part, examples_file, read_examples
from selfpos.scores.files import TaskScore
from selfpos.scores.intervals import Difference, estimate
from selfpos.scores.measures import resamples, score_of
from selfpos.scores.ranks import borda_ranks, holm

MEAN, MEAN_OF_TYPES = "mean over tasks", "mean over types"
AGREEMENT = 1e-3  # between a score and what its examples come to


@dataclass(frozen=True)
class Row:
    """One model. `scores` maps each column of the comparison to its score, the mean over seeds, and leaves out what was not scored; `spread` to the
    standard deviation over seeds, where there are several. `differences` are to the baseline; `worst` is the task that it loses most on, or gains least."""

    model: str
    scores: Mapping[str, float]
    spread: Mapping[str, float]
    seeds: int
    borda: int | None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    worst: str | None = None


@dataclass(frozen=True)
class Comparison:
    """`tasks` maps each task to its type and metric; `types` each type to its tasks. Columns of the rows are the tasks, the types and the two means."""

    tasks: Mapping[str, tuple[str, str]]
    types: Mapping[str, list[str]]
    rows: list[Row]
    baseline: str
    level: float
    draws: int
    notes: list[str]

    @property
    def columns(self) -> list[str]:
        return [*self.tasks, *self.types, MEAN, MEAN_OF_TYPES]


Runs = Mapping[str, Mapping[str, TaskScore]]


def compare(
    models: Sequence[Scored],
    *,
    baseline: str | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    tick: Callable[[str], object] = lambda _: None,
) -> Comparison:
    """Compare `models`; the baseline is the model called so, else `base` where there is one, else the first.

    Differences come with intervals of `level` from `draws` resamples of each task's examples, paired between models, and p-values corrected by
    Holm: once over all differences on tasks, once over those of type means, once each over the models' two means. A mean is given for
    models that were scored on all of its tasks. `tick` is called with each task's name. Raises SelfposError for an unknown baseline.
    """
    if not models:
        raise SelfposError("there is no model to compare")
    by_name = {model.name: model for model in models}
    if baseline is not None and baseline not in by_name:
        raise unknown("model in the comparison", baseline, by_name)
    chosen = baseline or ("base" if "base" in by_name else models[0].name)
    tasks = {
        name: (score.type, score.metric)
        for model in models
        for run in model.runs.values()
        for name, score in run.items()
    }
    types = {
        kind: [task for task, (other, _) in tasks.items() if other == kind]
        for kind in dict.fromkeys(kind for kind, _ in tasks.values())
    }
    groups = {
        **{task: [[task]] for task in tasks},
        **{kind: [[task] for task in found] for kind, found in types.items()},
    }
    groups |= {MEAN: [[task] for task in tasks], MEAN_OF_TYPES: list(types.values())}
    drawn: dict[str, dict[str, np.ndarray]] = {column: {} for column in groups}
    lacking: dict[str, str] = {}
    pairs = {model.name: _pairs(model.runs, by_name[chosen].runs) for model in models if model.name != chosen}
    for number, task in enumerate(tasks):
        replicates, reason = _replicates(models, task, draws, [seed, number])
        tick(task)
        if reason:
            lacking[task] = reason
        for name, found in pairs.items():
            difference = _mean_difference(
                replicates,
                name,
                chosen,
                [pair for pair in found if all(task in run for run in _runs(pair, by_name, name, chosen))],
            )
            for column, parts in groups.items():
                if difference is not None and (share := _share(parts, task)):
                    drawn[column][name] = drawn[column].get(name, 0.0) + share * difference
                elif difference is None and _share(parts, task):
                    drawn[column][name] = np.full(draws, np.nan)
    rows = [
        _row(model, by_name[chosen], groups, pairs.get(model.name, []), drawn, tasks, 1 - level)
        for model in models
    ]
    rows = _ranked(_corrected(rows, tasks, types), list(tasks))
    notes = [f"no intervals on {task}: {reason}" for task, reason in lacking.items()]
    tests = sum(
        found.p is not None for row in rows for column, found in row.differences.items() if column in tasks
    )
    needed = int(
        round(2 * tests / (1 - level), 6)
    )  # below it, the smallest p-value that resamples can give is not significant
    if tests and draws < needed and all(len(model.runs) == 1 for model in models):
        notes.append(
            f"{draws} resamples cannot tell {tests} differences apart from chance after the correction: take at least {needed} (--draws)"
        )
    return Comparison(tasks, types, rows, chosen, level, draws, notes)


def _share(parts: Sequence[Sequence[str]], task: str) -> float:
    """The weight of `task` in a mean over `parts`, each a mean over its tasks."""
    return sum(1 / len(part) / len(parts) for part in parts if task in part)


def _pairs(model: Runs, baseline: Runs) -> list[tuple[str, str]]:
    """Runs of the model and of the baseline to set against each other: equal runs, or each with the only one of the other."""
    shared = [(run, run) for run in model if run in baseline]
    if shared:
        return shared
    return [(one, two) for one in model for two in baseline] if 1 in (len(model), len(baseline)) else []


def _runs(
    pair: tuple[str, str], by_name: Mapping[str, Scored], model: str, baseline: str
) -> tuple[Mapping[str, TaskScore], ...]:
    return by_name[model].runs[pair[0]], by_name[baseline].runs[pair[1]]


def _mean_difference(
    replicates: Mapping[tuple[str, str], np.ndarray],
    model: str,
    baseline: str,
    pairs: Sequence[tuple[str, str]],
) -> np.ndarray | None:
    found = [(replicates.get((model, one)), replicates.get((baseline, two))) for one, two in pairs]
    if not found or any(one is None or two is None for one, two in found):
        return None
    return np.mean([one - two for one, two in found if one is not None and two is not None], axis=0)


def _replicates(
    models: Sequence[Scored], task: str, draws: int, seed: list[int]
) -> tuple[dict[tuple[str, str], np.ndarray], str]:
    """(model, run) → scores (draws,) on resamples of the examples of `task`, the same examples for all; and why some have none."""
    from numpy.random import SeedSequence

    kept = {}
    for model in models:
        for run, scores in model.runs.items():
            if task in scores and (parts := _parts(scores[task])):
                kept[model.name, run] = parts
    asked = sum(task in scores for model in models for scores in model.runs.values())
    reason = (
        ""
        if len(kept) == asked
        else "the examples behind its scores were not kept; remove its result files and score again with `selfpos eval-mteb`"
    )
    keys = {tuple((part.split, part.subset, part.key) for part in parts) for parts in kept.values()}
    if len(keys) > 1:
        return {}, "the models were scored on other examples"
    found: dict[tuple[str, str], np.ndarray] = {}
    sequence = SeedSequence(seed)
    for place, number in zip(
        range(len(next(iter(kept.values()), []))), sequence.generate_state(64), strict=False
    ):
        together = resamples([parts[place] for parts in kept.values()], draws, int(number))
        for column, owner in enumerate(kept):
            found[owner] = found.get(owner, 0.0) + together[:, column] / len(kept[owner])
    return found, reason


def _parts(score: TaskScore) -> list[Part]:
    """The examples behind `score`, in the order of splits and subsets; none where they do not come to it."""
    try:
        revision = str(json.loads(score.file.read_text(encoding="utf-8"))["dataset_revision"])
    except (OSError, ValueError, KeyError):
        return []
    parts = sorted(
        read_examples(examples_file(score.file), revision), key=lambda part: (part.split, part.subset)
    )
    return (
        parts if parts and abs(fmean(score_of(part) for part in parts) - score.main_score) < AGREEMENT else []
    )


def _value(scores: Mapping[str, TaskScore], parts: Sequence[Sequence[str]]) -> float | None:
    """Mean over `parts` of the means over their tasks; None where one was not scored."""
    if any(task not in scores for part in parts for task in part):
        return None
    return fmean(fmean(scores[task].main_score for task in part) for part in parts)


def _row(
    model: Scored,
    baseline: Scored,
    groups: Mapping[str, Sequence[Sequence[str]]],
    pairs: Sequence[tuple[str, str]],
    drawn: Mapping[str, Mapping[str, np.ndarray]],
    tasks: Mapping[str, object],
    alpha: float,
) -> Row:
    scores, spread, differences = {}, {}, {}
    for column, parts in groups.items():
        values = [value for run in model.runs.values() if (value := _value(run, parts)) is not None]
        if len(values) == len(model.runs):
            scores[column] = fmean(values)
            if len(values) > 1:
                spread[column] = stdev(values)
        both = [(_value(model.runs[one], parts), _value(baseline.runs[two], parts)) for one, two in pairs]
        by_seed = np.array([one - two for one, two in both if one is not None and two is not None])
        if len(by_seed):
            found = drawn[column].get(model.name)
            usable = found is not None and bool(np.isfinite(found).all()) and len(by_seed) == len(pairs)
            differences[column] = estimate(found if usable else None, by_seed, alpha)
    lost = {task: differences[task].value for task in tasks if task in differences}
    return Row(
        model.name,
        scores,
        spread,
        len(model.runs),
        None,
        differences,
        min(lost, key=lambda task: lost[task]) if lost else None,
    )


def _corrected(rows: Sequence[Row], tasks: Mapping[str, object], types: Mapping[str, object]) -> list[Row]:
    """The rows with p-values adjusted within each family of comparisons."""
    adjusted: dict[tuple[str, str], float] = {}
    for family in (list(tasks), list(types), [MEAN], [MEAN_OF_TYPES]):
        cells = {
            (row.model, column): found.p
            for row in rows
            for column, found in row.differences.items()
            if column in family
        }
        told = {cell: p for cell, p in cells.items() if p is not None}
        adjusted |= dict(zip(told, holm(list(told.values())), strict=True))
    return [
        replace(
            row,
            differences={
                column: replace(found, adjusted=adjusted.get((row.model, column)))
                for column, found in row.differences.items()
            },
        )
        for row in rows
    ]


def _ranked(rows: Sequence[Row], tasks: Sequence[str]) -> list[Row]:
    """The rows with Borda ranks of the models that were scored on all tasks."""
    ranks = borda_ranks(
        {
            row.model: [row.scores[task] for task in tasks]
            for row in rows
            if all(task in row.scores for task in tasks)
        }
    )
    return [replace(row, borda=ranks.get(row.model)) for row in rows]
