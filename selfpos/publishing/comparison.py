"""The card's table of scores: this model beside base, specialists, joint model and whatever else was scored with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from selfpos.publishing.scores import Scores
from selfpos.publishing.story import Facts


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


def comparison(scores: Scores, own: str | None, facts: Facts) -> Comparison:
    """Tasks by type with the mean of each type that has several, then the mean over all that every model was scored on."""
    models = _order(scores, own, facts)
    tasks = sorted(scores.tasks.values(), key=lambda task: (task.type or "~", task.name))
    rows: list[Row] = []
    for type_ in dict.fromkeys(task.type for task in tasks):
        members = [task for task in tasks if task.type == type_]
        for task in members:
            unit = ", ".join(part for part in (type_, task.metric) if part)
            rows.append(Row(f"{task.name}{f' ({unit})' if unit else ''}", tuple(_cell(scores, model, task.name) for model in models)))
        if type_ and len(members) > 1:
            rows.append(_mean(f"*{type_}, mean of {len(members)}*", scores, models, [task.name for task in members]))
    if len(tasks) > 1:
        rows.append(_mean(f"**mean of {len(tasks)}**", scores, models, [task.name for task in tasks]))
    return Comparison(tuple(models), own, tuple(rows))


def worse_tasks(scores: Scores, own: str, facts: Facts) -> list[str]:
    """A sentence for each task on which this model scores below its base."""
    base = _base(scores, facts)
    found = []
    for task in scores.tasks if base and base != own else ():
        mine, other = scores.value(own, task), scores.value(base, task) if base else None
        if mine is not None and other is not None and mine < other:
            found.append(f"On {task} it scores below its base: {100 * mine:.2f} against {100 * other:.2f}.")
    return found


def _base(scores: Scores, facts: Facts) -> str | None:
    names = {"base", facts.base.name, facts.base.repo} if facts.base else {"base"}
    return next((model for model in scores.models if model in names), None)


def _order(scores: Scores, own: str | None, facts: Facts) -> list[str]:
    """Own first, then the base, the parents in their order, the joint model, then the rest by name."""
    base = _base(scores, facts)
    wanted = [own, base, *(parent.name for parent in facts.parents), "joint"]
    first = [name for name in wanted if name is not None and name in scores.models]
    return list(dict.fromkeys([*first, *sorted(scores.models)]))


def _cell(scores: Scores, model: str, task: str) -> str:
    value, interval = scores.value(model, task), scores.interval(model, task)
    if value is None:
        return ""
    return f"{100 * value:.2f}" + (f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else "")


def _mean(label: str, scores: Scores, models: Sequence[str], tasks: Sequence[str]) -> Row:
    """Means of the models that were scored on all of `tasks`; a mean over fewer would compare unlike things."""
    cells = []
    for model in models:
        values = [value for task in tasks if (value := scores.value(model, task)) is not None]
        cells.append(f"{100 * fmean(values):.2f}" if len(values) == len(tasks) else "")
    return Row(label, tuple(cells))
