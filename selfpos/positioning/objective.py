"""What positioning minimises: each task's own loss on batches of its probe records, computed from embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.tasks.losses import Embedded

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.probe import ProbeTask
    from selfpos.recipe import PositioningSettings

SMALLEST_BATCH = 4  # two labels with two records each


@dataclass(frozen=True)
class Batch:
    """Records of one task: its text columns, each of n texts, and the labels or scores (n,) when the task has them."""

    task: str
    columns: list[list[str]]
    labels: Tensor | None

    @property
    def count(self) -> int:
        return len(self.columns[0])

    def part(self, share: float, generator: torch.Generator) -> Batch:
        """The batch of about `share` of its records, at least four, drawn in neighbouring twos: task types put equal labels side by side."""
        twos = torch.randperm((self.count + 1) // 2, generator=generator)[
            : max(2, round(share * self.count / 2))
        ].tolist()
        rows = [row for two in sorted(twos) for row in (2 * two, 2 * two + 1) if row < self.count]
        columns = [[column[row] for row in rows] for column in self.columns]
        return Batch(self.task, columns, None if self.labels is None else self.labels[rows])


class TaskProbe:
    """The probe records of one task, its loss on them, and its batches."""

    def __init__(
        self,
        name: str,
        task_type: Any,
        dataset: Dataset,
        temperature: float,
        *,
        in_batch_negatives: bool = True,
    ) -> None:
        self.name, self.type, self.dataset, self.in_batch_negatives = (
            name,
            task_type,
            dataset,
            in_batch_negatives,
        )
        self.loss = task_type.loss(Embedded(), temperature)

    def draw(self, size: int, generator: torch.Generator, rows: Sequence[int] | None = None) -> Batch:
        """One batch of at most `size` records, of `rows` or of all, drawn so that it suits the loss (the task type knows how)."""
        dataset = self.dataset if rows is None else self.dataset.select(sorted(rows))
        return self._batch(self.type.draw(dataset, min(size, len(dataset)), generator))

    def everything(self) -> Batch:
        """All records as one batch in their order."""
        return self._batch(self.dataset[:])

    def sample(self, most: int, seed: int) -> Batch:
        """All records as one batch in their order, or `most` of them, drawn with `seed`: data often comes sorted by grade or class."""
        count = len(self.dataset)
        if count <= most:
            return self.everything()
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
        return self._batch(self.dataset.select(sorted(drawn.tolist()))[:])

    def parted(self, parts: int, generator: torch.Generator) -> list[list[int]]:
        """All rows in `parts` of like size, drawn at random, with every label's share in each; texts that need another of their label come in twos."""
        order = torch.randperm(len(self.dataset), generator=generator).tolist()
        dealt = [[row] for row in order]
        if self.type.target == "label":
            labels = self.dataset["label"][:]
            together = 2 if self.type.sampler == "group_by_label" else 1
            rows_of: dict[Any, list[int]] = {}
            for row in order:
                rows_of.setdefault(labels[row], []).append(row)
            dealt = [
                rows[start : start + together]
                for rows in rows_of.values()
                for start in range(0, len(rows), together)
            ]
            dealt.sort(key=len, reverse=True)
        return [[row for rows in dealt[part::parts] for row in rows] for part in range(parts)]

    def _batch(self, records: Mapping[str, list]) -> Batch:
        target = self.type.target if self.type.target in records else None
        columns = [list(values) for name, values in records.items() if name != target]
        return Batch(self.name, columns, None if target is None else torch.tensor(records[target]))

    def loss_of(self, batch: Batch, embeddings: Sequence[Tensor]) -> Tensor:
        """The task's loss of `batch`, given the embeddings (n, d) of each of its columns. Raises SelfposError when it is not finite."""
        labels = None if batch.labels is None else batch.labels.to(embeddings[0].device)
        if labels is None and not self.in_batch_negatives:
            if len(embeddings) < 3:
                raise SelfposError(
                    f"task {self.name} has no negatives of its own, so in_batch_negatives cannot be switched off"
                )
            # a batch of one record has no other record's texts for negatives
            alone = [
                [{"sentence_embedding": column[row : row + 1]} for column in embeddings]
                for row in range(len(embeddings[0]))
            ]
            value = torch.stack([self.loss(record, None) for record in alone]).mean()
        else:
            value = self.loss([{"sentence_embedding": column} for column in embeddings], labels)
        if not torch.isfinite(value):
            raise SelfposError(
                f"the loss of task {self.name} on the probe is {value.item()}: check its records, or raise the temperature"
            )
        return value


def losses_of(
    tasks: Mapping[str, TaskProbe], batches: Sequence[Batch], embeddings: Tensor
) -> dict[str, Tensor]:
    """Mean loss of each task over its batches, from the embeddings of all their texts in order, as `texts_of` lists them."""
    values: dict[str, list[Tensor]] = {}
    start = 0
    for batch in batches:
        columns = []
        for column in batch.columns:
            columns.append(embeddings[start : start + len(column)])
            start += len(column)
        values.setdefault(batch.task, []).append(tasks[batch.task].loss_of(batch, columns))
    return {task: torch.stack(found).mean() for task, found in values.items()}


def texts_of(batches: Sequence[Batch]) -> list[str]:
    """All texts of `batches`, batch by batch and column by column."""
    return [text for batch in batches for column in batch.columns for text in column]


def searched_by(probe: Mapping[str, ProbeTask], settings: PositioningSettings) -> dict[str, ProbeTask]:
    """The probe with every task's type as `settings` would have it: the paper's preset takes graded pairs by InfoNCE, for one."""
    kinds = {name: task.type.under(settings) for name, task in probe.items()}
    return {
        name: task if kinds[name] is task.type else replace(task, type=kinds[name])
        for name, task in probe.items()
    }


def split_probe(
    probe: Mapping[str, ProbeTask],
    held_out: float,
    seed: int,
    temperature: float,
    *,
    in_batch_negatives: bool = True,
) -> tuple[dict[str, TaskProbe], dict[str, TaskProbe]]:
    """(search part, validation part) of every task, `held_out` being the share of records kept for validation (0: no validation part).

    Records that share a text come into one part, as far as that leaves a validation part of half the size or more, and batches in both.
    Raises SelfposError when a task has no record, or too few for two parts of at least two records.
    """
    if not probe:
        raise SelfposError("the probe set holds no task, so there is nothing to position by")
    search, validation = {}, {}
    for name, task in probe.items():
        try:
            count = len(task.dataset)
        except SelfposError as error:
            raise SelfposError(
                f"the probe of task {name}: {error}; raise probe.per_task or check the task's data"
            ) from None
        if count == 0:
            raise SelfposError(
                f"the probe set holds no record of task {name}; raise probe.per_task or check the task's data"
            )
        kept = round(count * held_out)
        if count - kept < 2 or (held_out and kept < 2):
            raise SelfposError(
                f"the probe set holds {count} records of task {name}, too few with a held-out share of {held_out:g}; raise probe.per_task"
            )
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = _apart(task, order, kept) if kept else set()
        rows = [row for row in range(count) if row not in chosen]
        search[name] = TaskProbe(
            name, task.type, task.dataset.select(rows), temperature, in_batch_negatives=in_batch_negatives
        )
        if kept:
            held = task.dataset.select(sorted(chosen))
            validation[name] = TaskProbe(
                name, task.type, held, temperature, in_batch_negatives=in_batch_negatives
            )
    return search, validation


def _apart(task: ProbeTask, order: Sequence[int], count: int) -> set[int]:
    """At most `count` rows, the first of `order` that share no text with the other rows: the groups that fit, whole.

    Groups that are more than half of it are taken only where it does not come about without them. Where less than half of `count` comes
    together, or one of the two parts is without a batch, the first `count` rows of `order`.
    """
    from selfpos.data.probe import positive_texts, sharing

    group_of = {row: group for group in sharing(positive_texts(task.dataset)) for row in group}
    for largest in (count // 2, count):
        chosen: set[int] = set()
        for row in order:
            if row not in chosen and len(group_of[row]) <= min(largest, count - len(chosen)):
                chosen.update(group_of[row])
        if len(chosen) >= max(2, count // 2) and all(
            _gives_batch(task, rows) for rows in (chosen, set(order) - chosen)
        ):
            return chosen
    return set(order[:count])


def _gives_batch(task: ProbeTask, rows: set[int]) -> bool:
    try:
        task.type.draw(
            task.dataset.select(sorted(rows)),
            min(SMALLEST_BATCH, len(rows)),
            torch.Generator().manual_seed(0),
        )
    except SelfposError:
        return False
    return True


def sharing_texts(search: Mapping[str, TaskProbe], validation: Mapping[str, TaskProbe]) -> list[str]:
    """The tasks of which a text is in both parts: `split_probe` could not keep them apart."""
    from selfpos.data.probe import positive_texts

    def texts(part: TaskProbe) -> set[str]:
        return set().union(*positive_texts(part.dataset))

    return [name for name, part in validation.items() if not texts(search[name]).isdisjoint(texts(part))]


class Draws:
    """Batches for the steps of a search: mixed over the tasks, or of a single task at a time in shuffled rounds."""

    def __init__(
        self, tasks: Mapping[str, TaskProbe], batch_size: int, seed: int, *, single: bool = False
    ) -> None:
        self.tasks, self.single = tasks, single
        self.size = batch_size if single else max(SMALLEST_BATCH, batch_size // len(tasks))
        self.generator = torch.Generator().manual_seed(seed)
        self._round: list[str] = []

    def next(self) -> list[Batch]:
        if not self.single:
            return [task.draw(self.size, self.generator) for task in self.tasks.values()]
        if not self._round:
            names = list(self.tasks)
            self._round = [names[i] for i in torch.randperm(len(names), generator=self.generator).tolist()]
        return [self.tasks[self._round.pop()].draw(self.size, self.generator)]

    def state(self) -> dict[str, Any]:
        """Where the draws are, for `restore`."""
        return {"generator": self.generator.get_state(), "round": list(self._round)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.generator.set_state(state["generator"])
        self._round = list(state["round"])

    def covering(self) -> list[Batch]:
        """Batches of every task that look at all of its records, each once. Texts with labels come in twos: of an odd number one is left out."""
        found = []
        for task in self.tasks.values():
            parts = ceil(len(task.dataset) / self.size)
            if parts == 1:
                found.append(task.draw(self.size, self.generator))
                continue
            found += _drawn_from(task, task.parted(parts, self.generator), self) or [
                task.draw(self.size, self.generator)
            ]
        return found

    def fixed(self, records: int | None = None) -> list[Batch]:
        """Batches of every task to measure by: about `records` records of each, or about all."""
        return [
            task.draw(self.size, self.generator)
            for task in self.tasks.values()
            for _ in range(max(1, min(records or len(task.dataset), len(task.dataset)) // self.size))
        ]


def _drawn_from(task: TaskProbe, parts: Sequence[Sequence[int]], draws: Draws) -> list[Batch]:
    """A batch of each of `parts` that can give one: records without another of their label are of no use to the loss."""
    found, idle = [], 0
    for rows in parts:
        try:
            found.append(task.draw(draws.size, draws.generator, rows))
        except SelfposError:
            idle += len(rows)
    if idle:
        log.warning(
            "%d of %d probe records of task %s make no batch and are not searched on",
            idle,
            len(task.dataset),
            task.name,
        )
    return found


def check_draws(tasks: Mapping[str, TaskProbe], batch_size: int, *, single: bool = False) -> None:
    """Raise SelfposError, naming the task, unless every one of `tasks` can give such a batch as a search with these settings draws."""
    draws = Draws(tasks, batch_size, seed=0, single=single)
    for name, task in tasks.items():
        try:
            task.draw(draws.size, draws.generator)
        except SelfposError as error:
            raise SelfposError(
                f"the probe of task {name}: {error}; raise the probe's number of records, or look at the data"
            ) from None
