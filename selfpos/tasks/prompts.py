"""Prompts of tasks: what goes before their texts in training and on the probe, and what a model keeps.

A prompt is one text for all of a task's texts, or, for types that ask and answer, one for `query` and one for
`document`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from selfpos.errors import SelfposError
from selfpos.tasks.task import TaskType

Prompts = str | Mapping[str, str]

SIDES = ("query", "document")


def column_prompts(task_type: TaskType, prompts: Prompts, columns: Iterable[str]) -> dict[str, str]:
    """The prompt of each of the prepared text `columns` that has one."""
    by_side = _by_side(task_type, prompts)
    chosen = {column: by_side[SIDES[index > 0]] for index, column in enumerate(task_type.texts_of(columns))}
    return {column: prompt for column, prompt in chosen.items() if prompt}


def _by_side(task_type: TaskType, prompts: Prompts) -> dict[str, str]:
    if isinstance(prompts, str):
        return dict.fromkeys(SIDES, prompts)
    if not task_type.asks and prompts:
        raise SelfposError(
            f"task type {task_type.name} has no query and no document, so it takes one prompt, "
            f"found {dict(prompts)}"
        )
    if strange := set(prompts) - set(SIDES):
        raise SelfposError(f"prompts are for query and document, found {', '.join(sorted(strange))}")
    return dict.fromkeys(SIDES, "") | dict(prompts)


def kept_prompts(tasks: Mapping[str, tuple[TaskType, Prompts]]) -> dict[str, str]:
    """The prompts that a model trained on `tasks` keeps, by name.

    They go under MTEB's name of the type (`STS`, `Retrieval-query`), those of types that ask also under
    `query` and `document`, for `encode_query`. Where tasks disagree about a name, or one has no prompt, each
    keeps its prompt under the task's name instead.
    """
    wanted: dict[str, dict[str, str]] = {}
    for task, (task_type, prompts) in tasks.items():
        by_side = _by_side(task_type, prompts)
        if not task_type.asks:
            by_side = {"": by_side["query"]}
        for side, text in by_side.items():
            names = [f"{task_type.mteb_type}-{side}", side] if side else [task_type.mteb_type]
            for name in names:
                wanted.setdefault(name, {})[f"{task}-{side}" if side else task] = text
    kept: dict[str, str] = {}
    for name, texts in wanted.items():
        if len(set(texts.values())) == 1:
            kept[name] = next(iter(texts.values()))
        elif name not in SIDES:
            kept |= texts
    return {name: text for name, text in kept.items() if text}
