"""The data of a recipe's tasks: what each is trained on, and what is held out of it for the probe set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.recipe import Recipe, TaskSource

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.sources import LoadedSource
    from selfpos.overlap.contamination import Guard
    from selfpos.tasks import TaskType


@dataclass(frozen=True)
class TaskData:
    """One task's records, split into those it is trained on and those of the probe set."""

    type: TaskType
    training: Dataset
    probe: Dataset
    hash: str
    description: str
    source: TaskSource
    loaded: LoadedSource
    validation: Dataset | None = None

    def decides(self) -> dict[str, Any]:
        """What of the source decides a training beside its records: prompts, mined negatives, the records validated on."""
        from selfpos.data.sources import hash_records

        found = self.source.model_dump(mode="json", include={"prompts", "mine"})
        return found | ({} if self.validation is None else {"validation": hash_records(self.validation)})


def load_tasks(recipe: Recipe, data_root: Path | None, guard: Guard | None = None) -> dict[str, TaskData]:
    """Read every task's data, have `guard` look at it, and hold its part of the probe set out of it."""
    from selfpos.data.probe import hold_out
    from selfpos.data.sources import load_task
    from selfpos.tasks import get_task
    from selfpos.tasks.prompts import column_prompts

    loaded = {}
    held = recipe.probe.counts(recipe.tasks)
    for name, source in recipe.tasks.items():
        kind = get_task(source.type)
        column_prompts(kind, source.prompts, kind.text_columns)  # refuses such as the type has no place for
        found = load_task(source, seed=recipe.seed, data_root=data_root)
        if guard is not None:
            found = guard.look(name, kind, found)
        if recipe.probe.split is None:
            training, probe = hold_out(found.dataset, held[name], recipe.seed)
        else:
            other = load_task(source, seed=recipe.seed, data_root=data_root, split=recipe.probe.split)
            if guard is not None:
                other = guard.look(f"{name}, probe", kind, other)
            training, (_, probe) = found.dataset, hold_out(other.dataset, held[name], recipe.seed)
        asked = recipe.training.validation
        validation = (
            load_task(source, seed=recipe.seed, data_root=data_root, split=asked.split).dataset
            if asked and asked.split
            else None
        )
        loaded[name] = TaskData(
            kind, training, probe, found.hash, found.description, source, found, validation
        )
    return loaded
