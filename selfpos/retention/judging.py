"""What points are judged by: tasks of the domain and general tasks, on one table of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from selfpos.positioning.matching import Agreement, similarities
from selfpos.positioning.objective import TaskProbe, TextTable
from selfpos.positioning.verdict import Items, resampled
from selfpos.retention.index import Correction, fit
from selfpos.tasks.measure import TaskMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfpos.data.probe import ProbeTask

Side = Literal["domain", "general"]

RECORDS = 500  # of a task at most: a point is judged in milliseconds
TOLERATED = 0.2  # of the loss of agreement with the base on plain texts


@dataclass(frozen=True)
class JudgedTask:
    """One task. The first `asking` texts of its measure are questions to the others; 0 where none asks.

    `tolerated` is the share of the fine-tune's own loss on it that breaks no promise.
    """

    name: str
    side: Side
    measure: TaskMeasure
    asking: int = 0
    tolerated: float = 0.0

    @property
    def texts(self) -> list[str]:
        """What is to be embedded."""
        return self.measure.texts


def labelled(task: ProbeTask, side: Side, seed: int, similarity: str = "cosine") -> JudgedTask:
    """A task of records with labels, by its type's own measure; texts are compared by `similarity`."""
    probe = TaskProbe(task.name, task.type, task.dataset, 1.0, similarity)
    batch = probe.sample(RECORDS, seed)
    return JudgedTask(task.name, side, probe.measure(batch), batch.count if task.type.asks else 0)


@dataclass(frozen=True)
class PlainTask:
    """Plain texts before their teachers have embedded them: the fine-tunes in the domain, else the base."""

    name: str
    side: Side
    texts: list[str]
    asking: int = 0
    similarity: str = "cosine"

    @classmethod
    def of(cls, task: ProbeTask, side: Side, similarity: str) -> PlainTask:
        """The texts of a task without labels, which are compared by `similarity`."""
        return cls(task.name, side, list(task.dataset["text"]), similarity=similarity)

    def by(self, teachers: Sequence[Tensor]) -> JudgedTask:
        """The task of agreeing with the teachers, given their embeddings of the texts: with their mean.

        General texts show every change, of use or not, so a fifth of the loss on them is tolerated.
        """
        mean = torch.stack([similarities(embeddings, self.similarity) for embeddings in teachers]).mean(0)
        general = self.side == "general"
        measure = Agreement(self.texts, mean, of_base=general, similarity=self.similarity)
        return JudgedTask(self.name, self.side, measure, tolerated=TOLERATED if general else 0.0)


class Judge:
    """Judges embeddings (P, d) of the texts of `table`.

    With `documents`, embeddings by the base, the index is the base's: questions are asked of those, and all
    other embeddings are corrected. A text that the correction is fitted to is judged by one without it. The
    first `width` numbers of an embedding count, those that the model keeps, or all.
    """

    def __init__(
        self, tasks: Sequence[JudgedTask], table: TextTable, seed: int, width: int | None = None
    ) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.table, self.seed, self.width = table, seed, width
        self.rows = {task.name: table.rows(task.measure.texts) for task in tasks}

    def names(self, side: Side) -> list[str]:
        """The tasks of one side."""
        return [name for name, task in self.tasks.items() if task.side == side]

    def items(self, embeddings: Tensor, documents: Tensor | None = None) -> Items:
        """What each task's measure is computed from.

        Args:
            embeddings: of the texts of `table` at one point, (P, d).
            documents: the base's embeddings of them, (P, d), where its index is kept.
        """
        corrected = embeddings
        if documents is not None:
            correction, without_each = self._fitted(embeddings, documents)
            corrected = correction(embeddings)
            corrected[self._fitted_to] = without_each
        items = {}
        for name, task in self.tasks.items():
            rows = self.rows[name]
            values = corrected[rows]
            if documents is not None and task.asking:
                values[task.asking :] = documents[rows[task.asking :]]
            items[name] = task.measure.items(values[:, : self.width])
        return items

    def correction(self, embeddings: Tensor, documents: Tensor) -> Correction:
        """What takes embeddings at a point (P, d) to the base's (P, d): what a model to keep ends with."""
        return self._fitted(embeddings, documents)[0]

    def _fitted(self, embeddings: Tensor, documents: Tensor) -> tuple[Correction, Tensor]:
        return fit(embeddings[self._fitted_to], documents[self._fitted_to])

    @cached_property
    def _fitted_to(self) -> Tensor:
        """The rows of the domain's documents and of general texts, without the domain's questions."""
        asked = [self.rows[name][: self.tasks[name].asking] for name in self.names("domain")]
        rows = torch.unique(torch.cat(list(self.rows.values())))
        return rows[~torch.isin(rows, torch.cat(asked))]

    def scores(self, items: Items) -> dict[str, float]:
        """The measure of each task."""
        return {name: task.measure.score_of(items[name], None) for name, task in self.tasks.items()}

    def resampled(self, items: Items, task: str) -> NDArray:
        """The measure of one task on draws of its records, (draws,); the same draws for all points."""
        return resampled(self.tasks[task].measure, items[task], task, self.seed)


def without_texts(task: ProbeTask, excluded: set[str]) -> tuple[ProbeTask, int]:
    """`task` without the records that hold one of the texts `excluded` (of `texts_in`), and their number."""
    from selfpos.data.probe import positive_texts

    records = enumerate(positive_texts(task.records))
    rows = [row for row, texts in records if excluded.isdisjoint(map(_words, texts))]
    dropped = len(task.records) - len(rows)
    return (replace(task, records=task.records.select(rows)) if dropped else task), dropped


def texts_in(tasks: Mapping[str, ProbeTask]) -> set[str]:
    """All texts of the records of `tasks`, without negatives, with single spaces."""
    from selfpos.data.probe import positive_texts

    records = (texts for task in tasks.values() for texts in positive_texts(task.records))
    return {_words(text) for texts in records for text in texts}


def _words(text: str) -> str:
    return " ".join(text.split())
