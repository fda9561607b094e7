"""The data of a recipe's tasks: what each is trained on, and what is held out of it for the probe set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, TaskSource

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.sources import LoadedSource
    from selfpos.tasks import TaskType

Inspect = Callable[[str, "TaskType", "LoadedSource"], "LoadedSource"]
"""(name, task type, records) → the records, or fewer of them: the contamination check."""


@dataclass(frozen=True)
class ReadTask:
    """One task's records as they were read.

    `probe` and `validation` are of other splits, where the recipe names such.
    """

    type: TaskType
    source: TaskSource
    training: LoadedSource
    probe: LoadedSource | None
    validation: LoadedSource | None


@dataclass(frozen=True)
class TaskData:
    """One task's records, split into those it is trained on and those of the probe set."""

    type: TaskType
    training: Dataset
    probe: Dataset
    source: TaskSource
    loaded: LoadedSource
    validation: Dataset | None = None

    @property
    def hash(self) -> str:
        return self.loaded.hash

    @property
    def description(self) -> str:
        return self.loaded.description

    def deciding(self) -> dict[str, Any]:
        """What decides a training beside its records: prompts, mined negatives, the records validated on."""
        from selfpos.data.sources import hash_records

        settings = self.source.model_dump(mode="json", include={"prompts", "mine"})
        if self.validation is not None:
            settings["validation"] = hash_records(self.validation)
        return settings


def read_tasks(
    recipe: Recipe, data_root: Path | None, types: Mapping[str, TaskType] | None = None
) -> dict[str, ReadTask]:
    """Read the records of every task, by its type or the one that `types` has for it.

    Raises SelfposError, or what the first of them raises, with all tasks whose data cannot be read.
    """
    from selfpos.tasks import get_task

    tasks: dict[str, ReadTask] = {}
    failures: dict[str, SelfposError] = {}
    for name, source in recipe.tasks.items():
        try:
            tasks[name] = _read_task(
                recipe, source, data_root, types[name] if types else get_task(source.type)
            )
        except SelfposError as error:
            failures[name] = error
    if failures:
        kind = type(next(iter(failures.values())))
        raise kind("; ".join(f"task {name}: {error}" for name, error in failures.items()))
    return tasks


def _read_task(recipe: Recipe, source: TaskSource, data_root: Path | None, task_type: TaskType) -> ReadTask:
    from selfpos.data.sources import load_task
    from selfpos.tasks.task import column_prompts

    column_prompts(task_type, source.prompts, task_type.text_columns)  # refuses prompts without a column
    validation = recipe.training.validation
    read = partial(load_task, source, seed=recipe.seed, data_root=data_root, task_type=task_type)
    return ReadTask(
        task_type,
        source,
        training=read(),
        probe=read(split=recipe.probe.split) if recipe.probe.split else None,
        validation=read(split=validation.split) if validation and validation.split else None,
    )


def split_tasks(
    recipe: Recipe, tasks: Mapping[str, ReadTask], inspect: Inspect | None = None
) -> dict[str, TaskData]:
    """Hold each task's part of the probe set out of its records, which `inspect` may first make fewer.

    Where the recipe does not say how many, a small task gives a quarter of its records, unless nothing is
    trained on those that the probe is drawn from.
    """
    from selfpos.data.probe import hold_out, probe_size

    counts = recipe.probe.counts(recipe.tasks)
    size_is_given = bool({"per_task", "ratio"} & recipe.probe.model_fields_set)
    split = {}
    for name, task in tasks.items():
        if inspect is not None:
            probe = inspect(f"{name}, probe", task.type, task.probe) if task.probe else None
            task = replace(task, training=inspect(name, task.type, task.training), probe=probe)
        records = (task.probe or task.training).dataset
        count = counts[name]
        if task.probe is None and not size_is_given and (size := probe_size(count, len(records))) < count:
            count = size
            log.warning(
                "task %s: the probe takes %d of its %d records (see probe.per_task)",
                *(name, count, len(records)),
            )
        try:
            rest, probe_records = hold_out(records, count, recipe.seed)
        except SelfposError as error:
            raise SelfposError(f"task {name}: {error} (probe.per_task)") from None
        training = rest if task.probe is None else task.training.dataset
        validation = task.validation.dataset if task.validation else None
        split[name] = TaskData(task.type, training, probe_records, task.source, task.training, validation)
    return split


def load_tasks(recipe: Recipe, data_root: Path | None, inspect: Inspect | None = None) -> dict[str, TaskData]:
    """Read every task's records and hold its part of the probe set out of them."""
    return split_tasks(recipe, read_tasks(recipe, data_root), inspect)
