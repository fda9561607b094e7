"""Each task's own measure on a few records, higher is better: what a state of a model is chosen by, since a loss is not the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

DEPTH = 10  # of nDCG


class Measured(Protocol):
    """Records of one task: its text columns, each of n texts, and the labels or scores (n,) when the task has them."""

    @property
    def columns(self) -> list[list[str]]: ...
    @property
    def labels(self) -> Tensor | None: ...


@dataclass(frozen=True)
class Texts:
    """Records to measure on, out of a data set."""

    columns: list[list[str]]
    labels: Tensor | None

    @classmethod
    def of(
        cls, dataset: Dataset, columns: Sequence[str], target: str | None, prompts: Mapping[str, str]
    ) -> Texts:
        """The texts of `columns`, each behind its column's prompt, and the column `target` when there is one."""
        texts = [[prompts.get(column, "") + text for text in dataset[column]] for column in columns]
        return cls(texts, torch.tensor(dataset[target][:]) if target in dataset.column_names else None)


class TaskMeasure:
    """The measure of one task on its `own` records, with `known` ones as gallery or training set of the head.

    By the form of the records: graded pairs, Spearman's correlation of cosine and score; labelled pairs, average precision of ranking by
    cosine; labelled texts, accuracy on its own texts of nearest class means of all others, known and own; pairs without labels, nDCG@10
    of finding the second text among the second texts of all records.
    `texts` must be embedded to call `score`.
    """

    def __init__(self, known: Measured, own: Measured) -> None:
        self._own = own
        columns, labels = len(self._own.columns), self._own.labels
        self._head = labels is not None and columns == 1
        self._known_labels = known.labels if self._head else None
        # pairs with a target are measured by themselves, and of plain pairs only the second texts are searched: no more is embedded
        self._gallery = known.columns if self._head else known.columns[1:] if labels is None else []
        self.texts = [text for column in (*self._own.columns, *self._gallery) for text in column]

    def score(self, embeddings: Tensor) -> float:
        """The measure, of embeddings (len(texts), d) of `texts` in order."""
        return self.score_of(self.items(embeddings), None)

    def items(self, embeddings: Tensor) -> dict[str, NDArray]:
        """What the measure is made of, one value for each validation record, so that records can be drawn again for a bootstrap."""
        units = torch.nn.functional.normalize(embeddings.detach().double(), dim=1).cpu().numpy()
        ends = np.cumsum([len(column) for column in (*self._own.columns, *self._gallery)])[:-1]
        parts = np.split(units, ends)
        own, gallery = parts[: len(self._own.columns)], parts[len(self._own.columns) :]
        labels = None if self._own.labels is None else self._own.labels.numpy()
        if self._known_labels is not None and labels is not None:
            return {"hits": _nearest_class(own[0], labels, gallery[0], self._known_labels.numpy())}
        if labels is not None:
            return {"cosines": (own[0] * own[1]).sum(1), "target": labels}
        texts = [text for column in (*self._own.columns[1:], *self._gallery) for text in column]
        return {
            "gains": _gains(own[0], own[1], self._own.columns[1], np.concatenate([*own[1:], *gallery]), texts)
        }

    def score_of(self, items: Mapping[str, NDArray], chosen: NDArray | None) -> float:
        """The measure over the records `chosen` (indices, repeats allowed), or over all."""
        from scipy.stats import spearmanr
        from sklearn.metrics import average_precision_score

        items = items if chosen is None else {name: values[chosen] for name, values in items.items()}
        if "cosines" not in items:
            values = next(iter(items.values()))
            return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
        cosines, target = items["cosines"], items["target"]
        if len(np.unique(target)) < 2 or len(np.unique(cosines)) < 2:
            return 0.0
        if np.issubdtype(target.dtype, np.integer):
            return float(average_precision_score(target, cosines))
        return float(spearmanr(cosines, target).statistic)


def _nearest_class(own: NDArray, own_labels: NDArray, known: NDArray, known_labels: NDArray) -> NDArray:
    """1 where the nearest class mean is the own text's, else 0; nan for a text that is the only one of its class.

    Means are of all texts but the one asked about: every record serves, where a split of the records leaves many classes on one side only.
    """
    texts, labels = np.concatenate([known, own]), np.concatenate([known_labels, own_labels])
    classes, places = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(classes), texts.shape[1]))
    np.add.at(sums, places, texts)
    mine = places[len(known) :]
    cosines = own @ _units(sums).T
    others = sums[mine] - own
    cosines[np.arange(len(own)), mine] = (own * _units(others)).sum(1)
    hits = (cosines.argmax(1) == mine).astype(float)
    hits[np.bincount(places)[mine] < 2] = np.nan
    return hits


def _units(rows: NDArray) -> NDArray:
    lengths: NDArray = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, 1e-12)


def _gains(
    anchors: NDArray, positives: NDArray, own_texts: list[str], candidates: NDArray, texts: list[str]
) -> NDArray:
    """1 / log2(1 + rank) of each anchor's positive among the distinct candidate texts, 0 beyond rank 10."""
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        first.setdefault(text, index)
    distinct = list(first.values())
    similarities = anchors @ candidates[distinct].T
    own = (anchors * positives).sum(1, keepdims=True)
    same = np.array([[texts[place] == text for place in distinct] for text in own_texts])
    ranks = 1 + ((similarities > own) & ~same).sum(1)
    return np.where(ranks <= DEPTH, 1 / np.log2(1 + ranks), 0.0)
