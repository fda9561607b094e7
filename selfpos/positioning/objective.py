"""What positioning minimises: each task's loss on batches of its probe records, and their balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from selfpos.errors import SelfposError
from selfpos.positioning.smooth import RERANKED, ScoredPairs, SmoothMeasure, smooth_measure
from selfpos.storage.model_class import EMBEDDER, MULTI_VECTOR, RERANKER, SPARSE
from selfpos.tasks.losses import Embedded
from selfpos.tasks.measure import AnswerMeasure, PairMeasure, TaskMeasure, rows_by
from selfpos.tasks.types.candidates import RIGHT

if TYPE_CHECKING:
    from datasets import Dataset

QUESTIONS = 256
"""Records of a task that are read where each question is compared with each text: its pairs are kept."""


@dataclass(frozen=True)
class Batch:
    """Records of one task: text columns, each of n texts, and labels or scores (n,) if there are any."""

    task: str
    columns: list[list[str]]
    labels: Tensor | None
    own_candidates: bool = False

    @property
    def count(self) -> int:
        return len(self.columns[0])


class TextTable:
    """Distinct texts by row number: a text that several batches or measures share is embedded once."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(dict.fromkeys(texts))
        self._rows = {text: row for row, text in enumerate(self.texts)}

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Row numbers of `texts` in the embeddings of `self.texts`."""
        return torch.tensor([self._rows[text] for text in texts])


class TaskProbe:
    """The probe records of one task, its batches, and its loss and measures on them.

    Embeddings are compared by `similarity`, the model's `similarity_fn_name`.
    """

    def __init__(
        self, name: str, task_type: Any, dataset: Dataset, temperature: float, similarity: str = "cosine"
    ) -> None:
        self.name, self.type, self.dataset, self.temperature = name, task_type, dataset, temperature
        self.similarity = similarity

    @cached_property
    def loss(self) -> Any:
        """The loss that the task is trained with."""
        return self.type.loss(Embedded(), self.temperature)

    def draw(self, size: int, generator: torch.Generator, rows: Sequence[int] | None = None) -> Batch:
        """One batch of at most `size` records, of `rows` or of all, drawn as the task's loss needs it."""
        dataset = self.dataset if rows is None else self.dataset.select(sorted(rows))
        return self._batch(self.type.draw(dataset, min(size, len(dataset)), generator))

    def everything(self) -> Batch:
        """All records as one batch in their order."""
        return self._batch(self.dataset[:])

    def sample(self, most: int, seed: int) -> Batch:
        """All records as one batch, or `most` drawn with `seed`: data is often sorted by class."""
        count = len(self.dataset)
        if count <= most:
            return self.everything()
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
        return self._batch(self.dataset.select(sorted(drawn.tolist()))[:])

    def _loss(self, batch: Batch, embeddings: Sequence[Tensor]) -> Tensor:
        """The loss that the task is trained with, of columns (n, d); a scalar."""
        labels = None if batch.labels is None else batch.labels.to(embeddings[0].device)
        value: Tensor = self.loss([{"sentence_embedding": column} for column in embeddings], labels)
        return value

    def _batch(self, records: Mapping[str, list]) -> Batch:
        target = self.type.target if self.type.target in records else None
        columns = [list(values) for name, values in records.items() if name != target]
        labels = None if target is None else torch.tensor(records[target])
        return Batch(self.name, columns, labels, getattr(self.type, "own_candidates", False))

    def smooth(self, batch: Batch, temperature: float) -> SmoothMeasure:
        """What a search minimises on `batch`; similarities are divided by the temperature."""
        return smooth_measure(batch, temperature, self.similarity)

    def measure_beside(self, known: Batch, batch: Batch) -> TaskMeasure:
        """The task's own measure on `batch`, where `known` records serve as candidates too."""
        return TaskMeasure(known, batch, self.similarity)

    def measure(self, batch: Batch) -> TaskMeasure:
        """The task's own measure on `batch`, judged by itself alone."""
        labels = None if batch.labels is None else batch.labels[:0]
        return TaskMeasure(Batch(self.name, [[] for _ in batch.columns], labels), batch, self.similarity)

    def loss_of(self, batch: Batch, embeddings: Sequence[Tensor]) -> Tensor:
        """The loss of `batch`, given the embeddings (n, d) of each of its columns; refused if not finite."""
        value = self._loss(batch, embeddings)
        if not torch.isfinite(value):
            raise SelfposError(
                f"the loss of task {self.name} on the probe is {value.item()}: "
                "check its records, or raise the temperature"
            )
        return value


class PairProbe(TaskProbe):
    """Pairs of one task for a cross-encoder: a pair is one text of a batch, its score is the embedding."""

    def sample(self, most: int, seed: int) -> Batch:
        """All records as one batch, or those of `most` questions: all candidates of a question or none."""
        rows_of = rows_by(self.dataset[self.type.text_columns[0]][:])
        questions = list(rows_of)
        if len(questions) <= most:
            return self.everything()
        drawn = torch.randperm(len(questions), generator=torch.Generator().manual_seed(seed))[:most]
        rows = sorted(row for number in drawn.tolist() for row in rows_of[questions[number]])
        return self._batch(self.dataset.select(rows)[:])

    def _batch(self, records: Mapping[str, list]) -> Batch:
        questions, candidates = (records[column] for column in self.type.text_columns)
        pairs: Any = list(zip(questions, candidates, strict=True))
        return Batch(self.name, [pairs], torch.tensor(records[self.type.target]))

    def _loss(self, batch: Batch, embeddings: Sequence[Tensor]) -> Tensor:
        """Binary cross-entropy of the scores (n, 1), a scalar: the loss of `CandidatePairs`, which the
        library offers only around a CrossEncoder.
        """
        scores = embeddings[0].view(-1)
        return functional.binary_cross_entropy_with_logits(scores, _pairs(batch)[1].to(scores))

    def smooth(self, batch: Batch, temperature: float) -> SmoothMeasure:
        return ScoredPairs(*_pairs(batch), RIGHT, RERANKED * temperature)

    def measure_beside(self, known: Batch, batch: Batch) -> TaskMeasure:
        """The measure on `batch`, whose questions have candidates of their own."""
        return self.measure(batch)

    def measure(self, batch: Batch) -> TaskMeasure:
        """Average precision of each question's right candidates."""
        pairs, grades = _pairs(batch)
        return PairMeasure(pairs, grades.tolist(), RIGHT)


class SearchProbe(PairProbe):
    """Questions of one task and all its texts, for a model with a similarity of its own: each question with
    each text is a pair, which is right where the text answers the question.
    """

    def sample(self, most: int, seed: int) -> Batch:
        """All records, or QUESTIONS of them, at most `most`, drawn with `seed`."""
        return TaskProbe.sample(self, min(most, QUESTIONS), seed)

    def _batch(self, records: Mapping[str, list]) -> Batch:
        columns = [records[name] for name in self.type.texts_of(list(records))]
        right: dict[str, set[str]] = {}
        for question, answer in zip(columns[0], columns[1], strict=True):
            right.setdefault(question, set()).add(answer)
        texts = list(dict.fromkeys(text for column in columns[1:] for text in column))
        pairs: Any = [(question, text) for question in right for text in texts]
        return Batch(self.name, [pairs], torch.tensor([float(text in right[asked]) for asked, text in pairs]))

    def _loss(self, batch: Batch, embeddings: Sequence[Tensor]) -> Tensor:
        """InfoNCE of the similarities (n, 1) as they are, a scalar: the mean over right pairs of −log of the
        softmax among the question's wrong texts. The penalties of SPLADE's training are left out.
        """
        pairs, grades = _pairs(batch)
        questions = len({question for question, _ in pairs})
        scores = embeddings[0].view(questions, -1)
        right = (grades >= RIGHT).to(scores.device).view_as(scores)
        judged = ~right.all(1)
        scores, right = scores[judged], right[judged]
        wrong = scores.masked_fill(right, -torch.inf).logsumexp(1, keepdim=True)
        costs = (torch.logaddexp(scores, wrong) - scores)[right]
        return costs.mean() if len(costs) else 0 * embeddings[0].sum()

    def measure(self, batch: Batch) -> TaskMeasure:
        """nDCG@10 of each question's right texts."""
        pairs, grades = _pairs(batch)
        return AnswerMeasure(pairs, grades.tolist(), RIGHT)


PROBES: dict[str, type[TaskProbe]] = {
    EMBEDDER: TaskProbe,
    RERANKER: PairProbe,
    SPARSE: SearchProbe,
    MULTI_VECTOR: SearchProbe,
}
"""Class of models → the probe of a task that they learn."""


def _pairs(batch: Batch) -> tuple[Any, Tensor]:
    assert batch.labels is not None
    return batch.columns[0], batch.labels


def losses_of(
    tasks: Mapping[str, TaskProbe], batches: Sequence[Batch], embeddings: Tensor
) -> dict[str, Tensor]:
    """Mean loss of each task over its batches, from the embeddings of all texts (see `texts_of`)."""
    values: dict[str, list[Tensor]] = {}
    start = 0
    for batch in batches:
        columns = []
        for column in batch.columns:
            columns.append(embeddings[start : start + len(column)])
            start += len(column)
        values.setdefault(batch.task, []).append(tasks[batch.task].loss_of(batch, columns))
    return {task: torch.stack(losses).mean() for task, losses in values.items()}


def texts_of(batches: Sequence[Batch]) -> list[str]:
    """All texts of `batches`, batch by batch and column by column."""
    return [text for batch in batches for column in batch.columns for text in column]


@dataclass(frozen=True)
class Balance:
    """The mean of task losses, weighted by `ratios` (1 when absent), each in units of the base's loss.

    Without losses of the `base` they are taken as they are. Differentiable.
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    base: Mapping[str, float] | None = None

    def __call__(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One value of the losses of all tasks, or of the one task of a single-task batch."""
        weights = torch.tensor([self.ratios.get(task, 1.0) for task in losses], dtype=torch.float64)
        units = self.base or {}
        values = torch.stack([loss / (abs(units.get(task, 1.0)) or 1.0) for task, loss in losses.items()])
        return ((weights / weights.sum()).to(values) * values).sum()

    def value(self, losses: Mapping[str, float]) -> float:
        """The same of plain numbers."""
        return self({task: torch.tensor(loss, dtype=torch.float64) for task, loss in losses.items()}).item()
