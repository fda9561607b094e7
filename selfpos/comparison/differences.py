"""The comparison of models on tasks: scores, means, ranks, and differences to a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

import numpy as np

from selfpos.comparison.sources import Scored, base_among
from selfpos.errors import SelfposError, unknown
from selfpos.scores.examples import Examples, contributions, examples_file, read_examples, resamples, score_of
from selfpos.scores.files import TaskScore
from selfpos.scores.intervals import Difference, borda_ranks, estimate, holm, sign_flip
from selfpos.storage.manifest import read_json

MEAN, MEAN_OF_TYPES = "mean over tasks", "mean over types"
AGREEMENT = 1e-3  # between a score and the one that follows from its examples: MTEB rounds its files
NOT_KEPT = (
    "the examples behind its scores were not kept; "
    "remove its result files and score again with `selfpos eval-mteb`"
)
OTHER_EXAMPLES = "the models were scored on other examples"

Groups = Sequence[Sequence[str]]  # a column is the mean over groups of the means over their tasks
Draws = Mapping[str, "Paired"]  # model → its differences to the baseline
Replicates = tuple[Mapping[tuple[str, str], "Paired"], str]
"""(model, run) → its scores on the same resamples of a task; and why some are missing."""


@dataclass(frozen=True)
class Paired:
    """Scores, or differences of scores: on resamples (draws,), and what each example adds (n,)."""

    draws: np.ndarray
    by_example: np.ndarray


@dataclass(frozen=True)
class Row:
    """One model: column → score (the mean over seeds), standard deviation over seeds (`spread`, of several
    only), and difference to the baseline. All are in units of the score.

    Columns that were not scored are missing. `borda` is the rank, None where a task was not scored. `worst`
    is the task with the lowest difference, None for the baseline.
    """

    model: str
    scores: Mapping[str, float]
    spread: Mapping[str, float]
    seeds: int
    borda: int | None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    worst: str | None = None


@dataclass(frozen=True)
class Comparison:
    """`tasks` maps each task to its type and metric, `types` each type to its tasks.

    The columns of the rows are the tasks, the types and the two means. Intervals are of `level`, from `draws`
    resamples. `notes` say what has no interval.
    """

    tasks: Mapping[str, tuple[str, str]]
    types: Mapping[str, list[str]]
    rows: list[Row]
    baseline: str
    level: float
    draws: int
    notes: list[str]


def compare(
    models: Sequence[Scored],
    *,
    baseline: str | None = None,
    draws: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    tick: Callable[[str], object] = lambda _: None,
    resampled: Mapping[str, Replicates] | None = None,
) -> Comparison:
    """Compare `models` to the one called `baseline`; by default `base` if there is one, else that
    from which others were made, where their folders say so, else the first.

    Intervals of `level` come from `draws` resamples of each task's examples, paired between models; p-values
    from a sign-flip test over the examples, corrected by Holm over the differences on tasks, over those of
    type means, and over the models for each mean. A mean is given for models that were scored on all of its
    tasks. `tick` is called with each task's name. `resampled` is what `resample` gave for these models, where
    they are compared to several baselines. Raises SelfposError for no model or an unknown baseline.
    """
    if not models:
        raise SelfposError("there is no model to compare")
    by_name = {model.name: model for model in models}
    if baseline is not None and baseline not in by_name:
        raise unknown("model in the comparison", baseline, by_name)
    known = "base" if "base" in by_name else base_among(models)
    reference = by_name[baseline or known or models[0].name]
    tasks = _tasks(models)
    types: dict[str, list[str]] = {}
    for task, (kind, _) in tasks.items():
        types.setdefault(kind, []).append(task)
    columns: dict[str, Groups] = {task: [[task]] for task in tasks}
    columns |= {kind: [[task] for task in members] for kind, members in types.items()}
    columns |= {MEAN: [[task] for task in tasks], MEAN_OF_TYPES: list(types.values())}

    pairs = {model.name: _pairs(model, reference) for model in models if model is not reference}
    by_task: dict[str, Draws] = {}
    notes = []
    for number, task in enumerate(tasks):
        replicates, reason = (
            resampled[task] if resampled else _replicates(models, task, draws, [seed, number])
        )
        tick(task)
        if reason:
            notes.append(f"no intervals on {task}: {reason}")
        by_task[task] = _paired_differences(replicates, task, by_name, reference, pairs)
    rows = []
    for model in models:
        rows.append(_row(model, reference, columns, pairs.get(model.name, []), by_task, 1 - level, seed))
    rows = _ranked(_corrected(rows, [list(tasks), list(types), [MEAN], [MEAN_OF_TYPES]]), list(tasks))
    tests = [row.differences[task].p for row in rows for task in tasks if task in row.differences]
    count = sum(p is not None for p in tests)
    # With fewer resamples, even the smallest possible p-value is not significant after the correction.
    needed = int(round(count / (1 - level), 6))
    if count and draws < needed and all(len(model.runs) == 1 for model in models):
        notes.append(
            f"{draws} resamples cannot tell {count} differences apart from chance after the correction: "
            f"take at least {needed} (--draws)"
        )
    return Comparison(tasks, types, rows, reference.name, level, draws, notes)


def resample(models: Sequence[Scored], *, draws: int = 10_000, seed: int = 0) -> dict[str, Replicates]:
    """The scores of `models` on `draws` resamples of each task's examples, whatever the baseline is."""
    return {
        task: _replicates(models, task, draws, [seed, number]) for number, task in enumerate(_tasks(models))
    }


def _tasks(models: Sequence[Scored]) -> dict[str, tuple[str, str]]:
    """Task → its type and metric."""
    runs = [run for model in models for run in model.runs.values()]
    return {name: (score.type, score.metric) for run in runs for name, score in run.items()}


def _pairs(model: Scored, baseline: Scored) -> list[tuple[str, str]]:
    """Runs of model and baseline to compare: equal runs, or each with the only run of the other."""
    shared = [(run, run) for run in model.runs if run in baseline.runs]
    if shared:
        return shared
    if 1 not in (len(model.runs), len(baseline.runs)):
        return []
    return [(run, other) for run in model.runs for other in baseline.runs]


def _paired_differences(
    replicates: Mapping[tuple[str, str], Paired],
    task: str,
    models: Mapping[str, Scored],
    baseline: Scored,
    pairs: Mapping[str, Sequence[tuple[str, str]]],
) -> Draws:
    """Mean differences over the pairs of runs that scored `task`, of models with examples."""
    drawn = {}
    for name, runs in pairs.items():
        scored = [
            ((name, run), (baseline.name, other))
            for run, other in runs
            if task in models[name].runs[run] and task in baseline.runs[other]
        ]
        if scored and all(key in replicates for pair in scored for key in pair):
            both = [(replicates[run], replicates[other]) for run, other in scored]
            drawn[name] = Paired(
                np.mean([ours.draws - theirs.draws for ours, theirs in both], axis=0),
                np.mean([ours.by_example - theirs.by_example for ours, theirs in both], axis=0),
            )
    return drawn


def _replicates(models: Sequence[Scored], task: str, draws: int, seed: list[int]) -> Replicates:
    runs = [(model.name, run, scores) for model in models for run, scores in model.runs.items()]
    owners = [(name, run, scores[task]) for name, run, scores in runs if task in scores]
    examples = {(name, run): parts for name, run, score in owners if (parts := _examples(score))}
    if len({tuple((part.split, part.subset, part.key) for part in parts) for parts in examples.values()}) > 1:
        return {}, OTHER_EXAMPLES
    drawn: dict[tuple[str, str], list[np.ndarray]] = {owner: [] for owner in examples}
    seeds = np.random.SeedSequence(seed).generate_state(64)
    # Without equal keys we would have returned: all models have the same splits and subsets.
    for group, group_seed in zip(zip(*examples.values(), strict=True), seeds, strict=False):
        columns = resamples(list(group), draws, int(group_seed))
        for column, owner in enumerate(examples):
            drawn[owner].append(columns[:, column])
    replicates = {}
    for owner, parts in examples.items():
        values = [contributions(part, draws) for part in parts]
        by_example = np.concatenate([value / len(value) / len(parts) for value in values])
        replicates[owner] = Paired(np.mean(drawn[owner], axis=0), by_example)
    return replicates, NOT_KEPT if len(examples) < len(owners) else ""


def _examples(score: TaskScore) -> list[Examples]:
    """The examples behind `score` by split and subset; empty where the score does not follow from them."""
    try:
        revision = str(read_json(score.file)["dataset_revision"])
    except (OSError, SelfposError, KeyError):
        return []
    parts = read_examples(examples_file(score.file), revision)
    if not parts or abs(fmean(score_of(part) for part in parts) - score.main_score) >= AGREEMENT:
        return []
    return sorted(parts, key=lambda part: (part.split, part.subset))


def _value(scores: Mapping[str, TaskScore], groups: Groups) -> float | None:
    """Mean over `groups` of the means over their tasks; None where a task was not scored."""
    if any(task not in scores for group in groups for task in group):
        return None
    return fmean(fmean(scores[task].main_score for task in group) for group in groups)


def _of_column(by_task: Mapping[str, Draws], groups: Groups, model: str) -> Paired | None:
    """Differences of the mean over `groups`; None where a task of it has none."""
    total: np.ndarray | float = 0.0
    by_example = []
    for task, drawn in by_task.items():
        share = sum(1 / len(group) / len(groups) for group in groups if task in group)
        if share:
            if model not in drawn:
                return None
            total = total + share * drawn[model].draws
            by_example.append(share * drawn[model].by_example)
    return Paired(np.asarray(total), np.concatenate(by_example))


def _row(
    model: Scored,
    baseline: Scored,
    columns: Mapping[str, Groups],
    pairs: Sequence[tuple[str, str]],
    by_task: Mapping[str, Draws],
    alpha: float,
    seed: int,
) -> Row:
    scores, spread, differences = {}, {}, {}
    for column, groups in columns.items():
        values = [value for run in model.runs.values() if (value := _value(run, groups)) is not None]
        if len(values) == len(model.runs):
            scores[column] = fmean(values)
            if len(values) > 1:
                spread[column] = stdev(values)
        by_seed = []
        for run, other in pairs:
            value, reference = _value(model.runs[run], groups), _value(baseline.runs[other], groups)
            if value is not None and reference is not None:
                by_seed.append(value - reference)
        if by_seed:
            complete = len(by_seed) == len(pairs)
            paired = _of_column(by_task, groups, model.name) if complete else None
            differences[column] = Difference(float(np.mean(by_seed)), alpha=alpha)
            if paired is not None:
                p = sign_flip(paired.by_example, len(paired.draws), seed)
                differences[column] = estimate(paired.draws, np.array(by_seed), p, alpha)
    on_tasks = [task for task in by_task if task in differences]
    worst = min(on_tasks, key=lambda task: differences[task].value, default=None)
    return Row(model.name, scores, spread, len(model.runs), None, differences, worst)


def _corrected(rows: Sequence[Row], families: Sequence[Sequence[str]]) -> list[Row]:
    """The rows with p-values adjusted within each family of columns."""
    differences = {row.model: dict(row.differences) for row in rows}
    for family in families:
        tests: dict[tuple[str, str], float] = {}
        for row in rows:
            for column, difference in row.differences.items():
                if column in family and difference.p is not None:
                    tests[row.model, column] = difference.p
        for (model, column), adjusted in zip(tests, holm(list(tests.values())), strict=True):
            differences[model][column] = replace(differences[model][column], adjusted=adjusted)
    return [replace(row, differences=differences[row.model]) for row in rows]


def _ranked(rows: Sequence[Row], tasks: Sequence[str]) -> list[Row]:
    """The rows with the Borda ranks of the models that were scored on all tasks."""
    complete = [row for row in rows if all(task in row.scores for task in tasks)]
    ranks = borda_ranks({row.model: [row.scores[task] for task in tasks] for row in complete})
    return [replace(row, borda=ranks.get(row.model)) for row in rows]
