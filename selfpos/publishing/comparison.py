"""The card's table of scores: this model beside base, specialists, joint model and whatever else was scored with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from selfpos.publishing.roles import Roles
from selfpos.publishing.scores import Scores

RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """A task, or a mean over tasks, with one cell per model."""

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Models as columns, `own` among them, tasks as rows."""

    models: tuple[str, ...]
    own: str | None
    rows: tuple[Row, ...]


def comparison(scores: Scores, roles: Roles) -> Comparison:
    """Tasks by type with the mean of each type that has several, then the mean over all that every model was scored on."""
    models = [
        *roles.family,
        *sorted(name for name in scores.models if name not in roles.family and name not in roles.stale),
    ]
    tasks = sorted(scores.tasks.values(), key=lambda task: (task.type or "~", task.name))
    rows: list[Row] = []
    for type_ in dict.fromkeys(task.type for task in tasks):
        members = [task for task in tasks if task.type == type_]
        for task in members:
            unit = ", ".join(part for part in (type_, task.metric) if part)
            rows.append(
                Row(
                    f"{task.name}{f' ({unit})' if unit else ''}",
                    tuple(_cell(scores, model, task.name) for model in models),
                )
            )
        if type_ and len(members) > 1:
            rows.append(
                _mean(f"*{type_}, mean of {len(members)}*", scores, models, [task.name for task in members])
            )
    if len(tasks) > 1:
        rows.append(_mean(f"**mean of {len(tasks)}**", scores, models, [task.name for task in tasks]))
    return Comparison(tuple(models), roles.own, tuple(rows))


def worse_tasks(scores: Scores, roles: Roles) -> list[str]:
    """A sentence for each task on which this model scores below its base, with the interval of the difference where the examples were kept."""
    own, base = roles.own, roles.base
    if own is None or base is None or own == base:
        return []
    both = {task: (scores.value(own, task), scores.value(base, task)) for task in scores.tasks}
    worse = {
        task: (mine, other)
        for task, (mine, other) in both.items()
        if mine is not None and other is not None and mine < other
    }
    spans = _differences(scores, own, base, list(worse)) if worse else {}
    return [
        f"On {task} it scores below its base: {100 * mine:.2f} against {100 * other:.2f}{spans.get(task, '')}."
        for task, (mine, other) in worse.items()
    ]


def _differences(scores: Scores, own: str, base: str, tasks: Sequence[str]) -> dict[str, str]:
    """Task → the 95 % interval of the difference of `own` to `base`, by a paired bootstrap over the task's examples, in words."""
    from selfpos.comparison import Scored, compare
    from selfpos.scores.files import TaskScore

    def scored(model: str) -> Scored:
        files = {file.stem: file for file in scores.files[model]}
        found = {
            task: TaskScore(task, "", "", scores.value(model, task) or 0.0, files[task])
            for task in tasks
            if task in files
        }
        return Scored(model, {"": found})

    (row,) = [
        row
        for row in compare([scored(own), scored(base)], baseline=base, draws=RESAMPLES).rows
        if row.model == own
    ]
    found = {}
    for task in tasks:
        difference = row.differences.get(task)
        if difference is not None and difference.low is not None and difference.high is not None:
            noise = ", within the noise" if difference.low <= 0 <= difference.high else ""
            found[task] = (
                f" (difference {100 * difference.value:+.2f}, 95 % interval {100 * difference.low:+.2f} to {100 * difference.high:+.2f}{noise})"
            )
    return found


def _cell(scores: Scores, model: str, task: str) -> str:
    value, interval = scores.value(model, task), scores.interval(model, task)
    if value is None:
        return ""
    # word joiners: an interval is not to be broken in a narrow column
    return f"{100 * value:.2f}" + (
        f"<br><sub>{100 * interval[0]:.1f}\u2060–\u2060{100 * interval[1]:.1f}</sub>" if interval else ""
    )


def _mean(label: str, scores: Scores, models: Sequence[str], tasks: Sequence[str]) -> Row:
    """Means of the models that were scored on all of `tasks`; a mean over fewer would compare unlike things."""
    cells = []
    for model in models:
        values = [value for task in tasks if (value := scores.value(model, task)) is not None]
        cells.append(f"{100 * fmean(values):.2f}" if len(values) == len(tasks) else "")
    return Row(label, tuple(cells))
