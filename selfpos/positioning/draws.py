"""The probe set split into a part to search on and a part to select by, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from selfpos.errors import SelfposError
from selfpos.positioning.objective import PROBES, Batch, TaskProbe
from selfpos.storage.model_class import RERANKER
from selfpos.tasks.types.candidates import RIGHT

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.recipe import PositioningSettings

SMALLEST_BATCH = 4  # two labels with two records each


def probe_under(probe: Mapping[str, ProbeTask], settings: PositioningSettings) -> dict[str, ProbeTask]:
    """The probe with each task's type under `settings`: `sts_loss` can turn graded pairs into pairs."""
    types = {name: task.type.under(settings) for name, task in probe.items()}
    return {
        name: task if types[name] is task.type else replace(task, type=types[name])
        for name, task in probe.items()
    }


def split_probe(
    probe: Mapping[str, ProbeTask], held_out: float, seed: int, temperature: float, similarity: str = "cosine"
) -> tuple[dict[str, TaskProbe], dict[str, TaskProbe]]:
    """(search part, validation part) of every task; `held_out` is the share for validation, 0 for none.

    Records that share a text come into one part, as far as that leaves a validation part of half the size or
    more, and batches in both. Embeddings are compared by `similarity`.
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
        kept = round(count * held_out)
        if count - kept < 2 or (held_out and kept < 2):
            raise SelfposError(
                f"the probe set holds {count} records of task {name}, too few with a held-out share of "
                f"{held_out:g}; raise probe.per_task or check the task's data"
            )
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
        chosen = _validation_rows(task, order, kept) if kept else set()
        rows = [row for row in range(count) if row not in chosen]
        kind = PROBES[task.type.model_class]
        make = partial(kind, name, task.type, temperature=temperature, similarity=similarity)
        search[name] = make(task.dataset.select(rows))
        if kept:
            validation[name] = make(task.dataset.select(sorted(chosen)))
    return search, validation


def _validation_rows(task: ProbeTask, order: Sequence[int], count: int) -> set[int]:
    """At most `count` rows, the first of `order` that share no text with the other rows, in whole groups.

    Where less than half of `count` comes together, or one of the parts gives no batch, these are simply the
    first `count` rows of `order`.
    """
    from selfpos.data.probe import sharing

    group_of = {row: group for group in sharing(_binding_texts(task)) for row in group}
    for largest in (count // 2, count):
        chosen: set[int] = set()
        for row in order:
            if row not in chosen and len(group_of[row]) <= min(largest, count - len(chosen)):
                chosen.update(group_of[row])
        if len(chosen) < max(2, count // 2):
            continue
        if _gives_batch(task, chosen) and _gives_batch(task, set(order) - chosen):
            return chosen
    return set(order[:count])


def _binding_texts(task: ProbeTask | TaskProbe) -> list[set[str]]:
    """The texts of each record by which records hang together: of a reranker's pairs no wrong candidates,
    which are right answers to other questions.
    """
    from selfpos.data.probe import positive_texts

    if task.type.model_class != RERANKER:
        return positive_texts(task.dataset)
    columns = [task.dataset[name][:] for name in (*task.type.text_columns, task.type.target)]
    return [
        {question, candidate} if grade >= RIGHT else {question}
        for question, candidate, grade in zip(*columns, strict=True)
    ]


def _gives_batch(task: ProbeTask, rows: set[int]) -> bool:
    dataset = task.dataset.select(sorted(rows))
    try:
        task.type.draw(dataset, min(SMALLEST_BATCH, len(rows)), torch.Generator().manual_seed(0))
    except SelfposError:
        return False
    return True


def sharing_texts(search: Mapping[str, TaskProbe], validation: Mapping[str, TaskProbe]) -> list[str]:
    """The tasks with a text in both parts: `split_probe` could not keep their records apart."""

    def texts(part: TaskProbe) -> set[str]:
        return set().union(*_binding_texts(part))

    return [name for name, part in validation.items() if not texts(search[name]).isdisjoint(texts(part))]


class Draws:
    """Batches for the steps of a search: mixed over the tasks, or `single`, one task in turn."""

    def __init__(
        self, tasks: Mapping[str, TaskProbe], batch_size: int, seed: int, *, single: bool = False
    ) -> None:
        self.tasks, self.single = tasks, single
        self.size = batch_size if single else max(SMALLEST_BATCH, batch_size // len(tasks))
        self.generator = torch.Generator().manual_seed(seed)
        self._round: list[str] = []

    def next(self) -> list[Batch]:
        """The batches of the next step."""
        if not self.single:
            return [task.draw(self.size, self.generator) for task in self.tasks.values()]
        if not self._round:
            names = list(self.tasks)
            self._round = [names[i] for i in torch.randperm(len(names), generator=self.generator).tolist()]
        return [self.tasks[self._round.pop()].draw(self.size, self.generator)]

    def state(self) -> dict[str, Any]:
        """The state of the draws, for `restore`."""
        return {"generator": self.generator.get_state(), "round": list(self._round)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.generator.set_state(state["generator"])
        self._round = list(state["round"])

    def fixed(self, records: int | None = None) -> list[Batch]:
        """Batches of every task to measure by: about `records` records of each task, or about all."""
        batches = []
        for task in self.tasks.values():
            count = min(records or len(task.dataset), len(task.dataset))
            batches += [task.draw(self.size, self.generator) for _ in range(max(1, count // self.size))]
        return batches


def check_draws(tasks: Mapping[str, TaskProbe], batch_size: int, *, single: bool = False) -> None:
    """Raise SelfposError, naming the task, unless each of `tasks` can give the batches of such a search."""
    draws = Draws(tasks, batch_size, seed=0, single=single)
    for name, task in tasks.items():
        try:
            task.draw(draws.size, draws.generator)
        except SelfposError as error:
            raise SelfposError(
                f"the probe of task {name}: {error}; raise the probe's number of records, or look at the data"
            ) from None
