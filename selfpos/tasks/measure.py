"""Each task's measure on a few records, higher is better: states of a model are selected by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

DEPTH = 10  # of nDCG


class Measured(Protocol):
    """Records of one task: text columns, each of n texts, and labels or scores (n,) if there are any."""

    @property
    def columns(self) -> list[list[str]]: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def own_candidates(self) -> bool: ...


@dataclass(frozen=True)
class Texts:
    """Records to measure on, out of a data set."""

    columns: list[list[str]]
    labels: Tensor | None
    own_candidates: bool = False

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        columns: Sequence[str],
        target: str | None,
        prompts: Mapping[str, str],
        own_candidates: bool = False,
    ) -> Texts:
        """The texts of `columns`, each behind its column's prompt, and the column `target` if it is there."""
        texts = [[prompts.get(column, "") + text for text in dataset[column]] for column in columns]
        labels = torch.tensor(dataset[target][:]) if target in dataset.column_names else None
        return cls(texts, labels, own_candidates)


class TaskMeasure:
    """The measure of one task on the records `measured`; `known` ones serve as candidates or to teach the
    classes.

    By the form of the records:

    - graded pairs: Spearman's correlation of cosine and score;
    - labelled pairs: average precision of ranking by cosine;
    - labelled texts: accuracy of the nearest class mean of all other texts, known and measured;
    - pairs without labels: nDCG@10 of the second text among the second texts of all records;
    - with own candidates: mean average precision of each anchor's positives among its own texts.

    Texts without labels are ranked by `similarity`, the model's `similarity_fn_name`.

    `texts` must be embedded to call `score`.
    """

    #: whether the base itself is the measure's optimum, so that every other point is below it
    of_base = False
    #: whether it is agreement with a teacher, which shows every change, of use or not
    taught = False

    def __init__(self, references: Measured, measured: Measured, similarity: str = "cosine") -> None:
        self._measured, self._known_labels, self._similarity = measured, None, similarity
        if measured.own_candidates:
            self._candidates = []
        elif measured.labels is None:
            self._candidates = references.columns[1:]
        elif len(measured.columns) == 1:
            self._candidates, self._known_labels = references.columns, references.labels
        else:  # pairs with a target are measured by themselves
            self._candidates = []
        self.texts = [text for column in (*measured.columns, *self._candidates) for text in column]

    def score(self, embeddings: Tensor) -> float:
        """The measure, of embeddings (len(texts), d) of `texts` in order."""
        return self.score_of(self.items(embeddings), None)

    def items(self, embeddings: Tensor) -> dict[str, NDArray]:
        """What the measure is computed from, one value a record, so that a bootstrap can resample records.

        With own candidates one value an anchor, in the order of their first records.
        """
        columns = self._measured.columns
        ranked = self._measured.labels is None
        rows = embeddings.detach().double()
        if self._similarity == "cosine" or not ranked:
            rows = torch.nn.functional.normalize(rows, dim=1)
        ends = np.cumsum([len(column) for column in (*columns, *self._candidates)])[:-1]
        parts = np.split(rows.cpu().numpy(), ends)
        first, others, candidates = parts[0], parts[1 : len(columns)], parts[len(columns) :]
        labels = None if self._measured.labels is None else self._measured.labels.numpy()
        if self._known_labels is not None and labels is not None:
            return {"hits": _nearest_class(first, labels, candidates[0], self._known_labels.numpy())}
        if labels is not None:
            return {"cosines": (first * others[0]).sum(1), "target": labels}
        if self._measured.own_candidates:
            return {"precisions": _own_precisions(columns, parts, self._similarity)}
        texts = [text for column in (*columns[1:], *self._candidates) for text in column]
        documents = np.concatenate([*others, *candidates])
        return {"gains": _gains(first, others[0], columns[1], documents, texts, self._similarity)}

    def score_of(self, items: Mapping[str, NDArray], rows: NDArray | None) -> float:
        """The measure over the records `rows` (indices, repeats allowed), or over all."""
        from scipy.stats import spearmanr
        from sklearn.metrics import average_precision_score

        if rows is not None:
            items = {name: values[rows] for name, values in items.items()}
        if "cosines" not in items:
            values = next(iter(items.values()))
            return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
        cosines, target = items["cosines"], items["target"]
        if len(np.unique(target)) < 2 or len(np.unique(cosines)) < 2:
            return 0.0
        if np.issubdtype(target.dtype, np.integer):
            return float(average_precision_score(target, cosines))
        return float(spearmanr(cosines, target).statistic)


class PairMeasure(TaskMeasure):
    """Mean average precision of each question's right candidates among its own, as a cross-encoder scores
    them. Candidates graded `right` or more are right.

    `texts` are pairs of question and candidate, their embeddings the model's scores, (pairs, 1).
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], grades: Sequence[float], right: float) -> None:
        self.texts: Any = list(pairs)
        self._right = np.asarray(grades) >= right
        self._rows = list(rows_by([question for question, _ in pairs]).values())

    @property
    def judges(self) -> bool:
        """Whether a question has both a right and a wrong candidate."""
        return any(0 < self._right[rows].sum() < len(rows) for rows in self._rows)

    def items(self, embeddings: Tensor) -> dict[str, NDArray]:
        """A precision for each question, in the order of their first pairs; nan without a right and a wrong
        candidate.
        """
        from sklearn.metrics import average_precision_score

        scores = embeddings.detach().double().cpu().numpy()[:, 0]
        precisions = np.full(len(self._rows), np.nan)
        for number, rows in enumerate(self._rows):
            if 0 < self._right[rows].sum() < len(rows):
                precisions[number] = average_precision_score(self._right[rows], scores[rows])
        return {"precisions": precisions}


class AnswerMeasure(PairMeasure):
    """nDCG@10 of each question's right texts among the wrong ones, by a model's own similarity."""

    def items(self, embeddings: Tensor) -> dict[str, NDArray]:
        """The mean gain of each question's right texts, in the order of their first pairs; nan as above."""
        scores = embeddings.detach().double().cpu().numpy()[:, 0]
        gains = np.full(len(self._rows), np.nan)
        for number, rows in enumerate(self._rows):
            right = self._right[rows]
            if 0 < right.sum() < len(rows):
                ours = scores[rows][right, None]
                gains[number] = _discounted(scores[rows][None, :], ours, right[None, :]).mean()
        return {"gains": gains}


class SearchMeasure(TaskMeasure):
    """nDCG@10 of each question's positive among the other texts of all records, by a model's own similarity.

    Its score is of similarities (len(questions), len(texts)), instead of embeddings.
    """

    def __init__(self, measured: Measured) -> None:
        self.questions, self._positives = measured.columns[:2]
        self.texts = list(dict.fromkeys(text for column in measured.columns[1:] for text in column))

    def items(self, embeddings: Tensor) -> dict[str, NDArray]:
        similarities = embeddings.detach().double().cpu().numpy()
        row_of = {text: row for row, text in enumerate(self.texts)}
        positives = np.array([[row_of[text]] for text in self._positives])
        to_positive = np.take_along_axis(similarities, positives, axis=1)
        return {"gains": _discounted(similarities, to_positive, positives == np.arange(len(self.texts)))}


def rows_by(texts: Sequence[str]) -> dict[str, list[int]]:
    """Text → the rows that hold it, both in their order."""
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    return rows


def _nearest_class(
    texts: NDArray, labels: NDArray, references: NDArray, reference_labels: NDArray
) -> NDArray:
    """1 where the nearest class mean is the text's, else 0; nan for the only text of a class.

    Means are of all texts but the one in question: every record is used, where a split of the records would
    leave many classes on one side only.
    """
    classes, class_of = np.unique(np.concatenate([reference_labels, labels]), return_inverse=True)
    sums = np.zeros((len(classes), texts.shape[1]))
    np.add.at(sums, class_of, np.concatenate([references, texts]))
    true_class = class_of[len(references) :]
    cosines = texts @ _units(sums).T
    without_itself = sums[true_class] - texts
    cosines[np.arange(len(texts)), true_class] = (texts * _units(without_itself)).sum(1)
    hits = (cosines.argmax(1) == true_class).astype(float)
    hits[np.bincount(class_of)[true_class] < 2] = np.nan
    return hits


def _own_precisions(columns: Sequence[Sequence[str]], parts: Sequence[NDArray], similarity: str) -> NDArray:
    """Average precision of each distinct anchor's positives among its own texts; nan without a negative."""
    from sklearn.metrics import average_precision_score

    rows_of = rows_by(columns[0])
    precisions = np.full(len(rows_of), np.nan)
    for number, rows in enumerate(rows_of.values()):
        scores: dict[str, float] = {}
        for column, embeddings in zip(columns[1:], parts[1:], strict=False):
            scores |= {column[row]: _pairwise(parts[0][row], embeddings[row], similarity) for row in rows}
        positives = {columns[1][row] for row in rows}
        labels = [text in positives for text in scores]
        if not all(labels):
            precisions[number] = average_precision_score(labels, list(scores.values()))
    return precisions


def _units(rows: NDArray) -> NDArray:
    lengths: NDArray = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, 1e-12)


DISTANCES = {"euclidean": "euclidean", "manhattan": "cityblock"}
"""Similarities that are distances with a minus → what SciPy calls them."""


def _pairwise(one: NDArray, other: NDArray, similarity: str) -> float:
    if similarity in DISTANCES:
        return float(_similarities(one[None], other[None], similarity)[0, 0])
    return float(one @ other)


def _similarities(rows: NDArray, others: NDArray, similarity: str) -> NDArray:
    """Similarities (n, m); of cosines, `rows` and `others` are of length 1."""
    from scipy.spatial.distance import cdist

    return -cdist(rows, others, DISTANCES[similarity]) if similarity in DISTANCES else rows @ others.T


def _gains(
    anchors: NDArray,
    positives: NDArray,
    positive_texts: list[str],
    candidates: NDArray,
    texts: list[str],
    similarity: str,
) -> NDArray:
    """1 / log2(1 + rank) of each anchor's positive among the distinct candidate texts, 0 beyond rank 10."""
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        first.setdefault(text, index)
    distinct = np.array(list(first.values()))
    similarities = _similarities(anchors, candidates[distinct], similarity)
    same = np.array([first[text] for text in positive_texts])[:, None] == distinct
    to_positive = (anchors * positives).sum(1, keepdims=True)
    if similarity in DISTANCES:
        to_positive = np.take_along_axis(similarities, same.argmax(1)[:, None], axis=1)
    return _discounted(similarities, to_positive, same)


def _discounted(similarities: NDArray, to_positive: NDArray, same: NDArray) -> NDArray:
    ranks = 1 + ((similarities > to_positive) & ~same).sum(1)
    return np.where(ranks <= DEPTH, 1 / np.log2(1 + ranks), 0.0)
