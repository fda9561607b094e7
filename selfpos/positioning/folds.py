"""The probe set as the default search reads it: all records at once, in folds, by smooth measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.positioning.objective import Batch, TaskProbe, TextTable
from selfpos.positioning.smooth import ClassMeans, SmoothMeasure
from selfpos.tasks.measure import rows_by

FOLDS = 5
LARGEST = 1024
"""Records of a task that are read, or questions of a reranker: the cost of most measures is their square."""
CANDIDATES = 4
"""Records of a question with candidates of its own that are read: each adds less than another question would,
and costs as much."""


@dataclass(frozen=True)
class TaskFolds:
    """One task's records: their smooth measure, the rows of its texts, and the fold of each record (n,)."""

    measure: SmoothMeasure
    rows: Tensor
    folds: Tensor

    def inside(self, fold: int) -> Tensor:
        """The records of `fold`."""
        return torch.nonzero(self.folds == fold)[:, 0]

    def outside(self, fold: int) -> Tensor:
        """The records of all other folds."""
        return torch.nonzero(self.folds != fold)[:, 0]

    @property
    def all(self) -> Tensor:
        """All records."""
        return torch.arange(self.measure.count)


def searched_records(task: TaskProbe, seed: int) -> Batch:
    """The records of a task that are searched on: LARGEST at most, and CANDIDATES of a question."""
    batch = task.sample(LARGEST, seed)
    if not batch.own_candidates:
        return batch
    rows = sorted(
        row for question_rows in rows_by(batch.columns[0]).values() for row in question_rows[:CANDIDATES]
    )
    return replace(batch, columns=[[column[row] for row in rows] for column in batch.columns])


class Folds:
    """The records of all tasks. `table` holds their distinct texts. Methods take their embeddings (P, d)."""

    def __init__(self, tasks: Mapping[str, TaskProbe], temperature: float, seed: int) -> None:
        self.probes = tasks
        self.batches = {name: searched_records(task, seed) for name, task in tasks.items()}
        measures = {name: tasks[name].smooth(batch, temperature) for name, batch in self.batches.items()}
        self.table = TextTable([text for measure in measures.values() for text in measure.texts])
        self.tasks: dict[str, TaskFolds] = {}
        for name, measure in measures.items():
            searched, available = self.batches[name].count, len(tasks[name].dataset)
            if searched < available:
                log.info("the search reads %d of %d records of task %s", searched, available, name)
            if isinstance(measure, ClassMeans) and (alone := measure.count - measure.usable):
                words = (
                    "%d of %d probe records of task %s have nothing to be judged by and are not searched on"
                )
                log.warning(words, alone, measure.count, name)
            folds = assign_folds(measure.sharing, measure.classes, seed, name)
            self.tasks[name] = TaskFolds(measure, self.table.rows(measure.texts), folds)

    def values(self, embeddings: Tensor, fold: int | None = None) -> dict[str, Tensor]:
        """The mean smooth measure of each task, of all records or of those outside `fold`."""
        values = {}
        for name, task in self.tasks.items():
            rows = task.all if fold is None else task.outside(fold)
            values[name] = task.measure.value(embeddings[task.rows], rows)
        return values

    def held_out(self, embeddings: Tensor, fold: int) -> dict[str, tuple[Tensor, Tensor]]:
        """The records of `fold` that have a value, and their values, judged among all records; by task."""
        return {
            name: task.measure.values(embeddings[task.rows], task.inside(fold), task.all)
            for name, task in self.tasks.items()
        }


def assign_folds(texts: list[set[str]], classes: Tensor | None, seed: int, task: str) -> Tensor:
    """The fold of each record, (n,). Records that share one of `texts` share a fold; classes spread out.

    Where the records hang together so much that a fold would be left with little, they are parted all the
    same, and a warning says so.
    """
    from selfpos.data.probe import sharing

    count = len(texts)
    generator = torch.Generator().manual_seed(seed)
    groups = sharing(texts)
    groups = [groups[index] for index in torch.randperm(len(groups), generator=generator).tolist()]
    if max(map(len, groups)) > max(2, 2 * count // FOLDS):
        log.warning(
            "records of task %s share texts and could not be kept apart: "
            "what is said of records that did not choose the point is too good",
            task,
        )
        groups = [[row] for row in torch.randperm(count, generator=generator).tolist()]
    if classes is not None:
        groups.sort(key=lambda group: int(classes[group[0]]))
        sizes = None
    else:
        groups.sort(key=len, reverse=True)
        sizes = [0] * FOLDS
    folds = torch.empty(count, dtype=torch.long)
    for index, group in enumerate(groups):
        fold = index % FOLDS if sizes is None else sizes.index(min(sizes))
        folds[group] = fold
        if sizes is not None:
            sizes[fold] += len(group)
    return folds


def check_records(tasks: Mapping[str, TaskProbe], temperature: float, seed: int) -> None:
    """Raise SelfposError, naming the task, unless records of each of `tasks` can be judged by others."""
    for name, task in tasks.items():
        batch = searched_records(task, seed)
        measure = task.smooth(batch, temperature)
        if not measure.usable:
            raise SelfposError(f"the probe of task {name}: of its {batch.count} records {measure.lacking}")
