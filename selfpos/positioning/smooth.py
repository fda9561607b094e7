"""What MTEB measures, made smooth: per record, differentiable in the embeddings, lower is better.

A search needs a slope, and a measure of a hundred records moves in steps of a point. How well each stand-in
follows the test score, beside the losses that tasks are trained with: benchmarks/study/objectives.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from selfpos.tasks.measure import Measured


class SmoothMeasure(ABC):
    """The smooth measure of one task's records.

    `texts` are to be embedded; cosines are divided by the temperature τ. Rows are indices of records, as
    int64 tensors. `sharing` has for each record the texts that bind it to others, `classes` its class (n,).
    """

    texts: list[str]
    sharing: list[set[str]]
    classes: Tensor | None = None
    #: whether values are in a unit already, rather than to be taken in units of the base's
    in_units = False

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self.sharing)

    @abstractmethod
    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the records `rows`, each judged among the records `others` and never by itself.

        Args:
            embeddings: of `texts`, (len(texts), d), of any length.
            rows: records that are asked for.
            others: records that they are judged among.

        Returns:
            Those of `rows` that have a value (a class of one text has none), and their values.
        """

    def value(self, embeddings: Tensor, rows: Tensor | None = None) -> Tensor:
        """The mean value of `rows` among themselves, or of all records; 0 if none has one."""
        rows = torch.arange(self.count) if rows is None else rows
        _, values = self.values(embeddings, rows, rows)
        return values.mean() if len(values) else 0 * embeddings.sum()

    @property
    def usable(self) -> int:
        """The number of records that have a value among all."""
        rows = torch.arange(self.count)
        return len(self.values(torch.ones(len(self.texts), 2), rows, rows)[0])


class ClassMeans(SmoothMeasure):
    """Labelled texts: −log of the softmax of the cosines with the class means, the text itself left out."""

    def __init__(self, texts: Sequence[str], labels: Tensor, temperature: float) -> None:
        self.temperature = temperature
        self.texts, self.sharing = list(texts), [{text} for text in texts]
        names, self.class_of = torch.unique(labels, return_inverse=True)
        self.classes, self.class_count = self.class_of, len(names)

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of texts whose class has another text among `others`."""
        units = functional.normalize(embeddings, dim=1)
        classes = self.class_of[others]
        sums = units.new_zeros(self.class_count, units.shape[1]).index_add(0, classes, units[others])
        counts = torch.bincount(classes, minlength=self.class_count)
        among = torch.zeros(self.count, dtype=torch.bool)
        among[others] = True
        rows = rows[counts[self.class_of[rows]] > among[rows].long()]
        texts, own_class = units[rows], self.class_of[rows]
        cosines = texts @ functional.normalize(sums, dim=1).T
        rest = functional.normalize(sums[own_class] - texts * among[rows, None].to(texts), dim=1)
        at_own = functional.one_hot(own_class, self.class_count).bool()
        cosines = torch.where(at_own, (texts * rest).sum(1, keepdim=True), cosines)
        cosines = cosines.masked_fill((counts == 0) & ~at_own, -torch.inf)
        shares = torch.log_softmax(cosines / self.temperature, dim=1)
        return rows, -shares.gather(1, own_class[:, None])[:, 0]


class GradedPairs(SmoothMeasure):
    """Graded pairs: how far the order of their cosines is from the order of the grades.

    Cosines are taken in units of their standard deviation, since Spearman's correlation knows no scale. The
    value of a pair is the mean of log(1 + exp((s_low − s_high)/τ)) over the other pairs of another grade.
    """

    def __init__(self, left: Sequence[str], right: Sequence[str], grades: Tensor, temperature: float) -> None:
        self.temperature = temperature
        self.texts = [*left, *right]
        self.sharing = [set(pair) for pair in zip(left, right, strict=True)]
        self.grades = grades.float()

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of pairs with another grade than one of `others`."""
        cosines = _standardised(embeddings, self.count, others)
        higher = torch.sign(self.grades[rows, None] - self.grades[others])
        has = (higher != 0).any(1)
        rows, higher = rows[has], higher[has]
        costs = functional.softplus((cosines[others] - cosines[rows, None]) * higher / self.temperature)
        compared = higher != 0
        return rows, (costs * compared).sum(1) / compared.sum(1)


class LabelledPairs(GradedPairs):
    """Pairs labelled 1 or 0: −log of the softmax of a right pair's cosine among it and the wrong pairs.

    Average precision looks at the wrong pairs that come out on top, and so does this. Cosines are in units of
    their standard deviation.
    """

    def __init__(self, left: Sequence[str], right: Sequence[str], labels: Tensor, temperature: float) -> None:
        super().__init__(left, right, labels, temperature)
        self.classes = labels.long()

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of the right pairs, if there is a wrong one among `others`."""
        cosines = _standardised(embeddings, self.count, others) / self.temperature
        wrong = others[self.grades[others] == 0]
        rows = rows[self.grades[rows] == 1] if len(wrong) else rows[:0]
        right = cosines[rows]
        return rows, torch.logaddexp(right, cosines[wrong].logsumexp(0)) - right


def _standardised(embeddings: Tensor, count: int, others: Tensor) -> Tensor:
    """The cosines of `count` pairs, left texts before right ones, less the mean and over the deviation of
    `others`.
    """
    units = functional.normalize(embeddings, dim=1)
    cosines = (units[:count] * units[count:]).sum(1)
    among = cosines[others]
    return (cosines - among.mean()) / among.std().clamp_min(1e-6)


class Ranking(SmoothMeasure):
    """Anchors and their texts: −log of the softmax of the positive's cosine among all texts but other
    positives of the anchor.

    With `own` a record is a distinct anchor, its candidates are its own texts, and its value is the mean over
    its positives.
    """

    def __init__(self, columns: Sequence[Sequence[str]], temperature: float, *, own: bool = False) -> None:
        self.temperature = temperature
        positives_of: dict[str, set[str]] = {}
        texts_of: dict[str, set[str]] = {}
        for anchor, positive, *negatives in zip(*columns, strict=True):
            positives_of.setdefault(anchor, set()).add(positive)
            texts_of.setdefault(anchor, set()).update([positive, *negatives])
        pairs = list(zip(columns[0], columns[1], strict=True))
        anchors = list(texts_of) if own else list(columns[0])
        if own:
            pairs = list(dict.fromkeys(pairs))
        candidates = list(dict.fromkeys(text for column in columns[1:] for text in column))
        index = {text: number for number, text in enumerate(candidates)}
        self.texts = [*anchors, *candidates]
        row_of = {anchor: row for row, anchor in enumerate(anchors)}
        self.record = torch.tensor([row_of[anchor] if own else row for row, (anchor, _) in enumerate(pairs)])
        self.positive = torch.tensor([index[positive] for _, positive in pairs])
        self.candidates = torch.full((len(anchors), len(candidates)), not own, dtype=torch.bool)
        self.sharing = [set() for _ in anchors]
        for row, anchor in enumerate(anchors):
            self.sharing[row] = {anchor, *positives_of[anchor]} if own else {anchor, columns[1][row]}
            if own:
                self.candidates[row, [index[text] for text in texts_of[anchor]]] = True
            self.candidates[row, [index[text] for text in positives_of[anchor]]] = False

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of all `rows` with a negative. The candidates are those of all records."""
        has_negative = self.candidates.any(1)
        rows = rows[has_negative[rows]]
        index = torch.full((self.count,), -1)
        index[rows] = torch.arange(len(rows))
        pairs = torch.nonzero(index[self.record] >= 0)[:, 0]
        units = functional.normalize(embeddings, dim=1)
        cosines = units[: self.count][rows] @ units[self.count :].T / self.temperature
        negative = cosines.masked_fill(~self.candidates[rows], -torch.inf).logsumexp(1)
        at = index[self.record[pairs]]
        positive = cosines[at, self.positive[pairs]]
        costs = torch.logaddexp(positive, negative[at]) - positive
        sums = costs.new_zeros(len(rows)).index_add(0, at, costs)
        return rows, sums / torch.bincount(at, minlength=len(rows))


GRADED, LABELLED = 6.0, 4.0  # τ of standardised cosines over the setting: .3 and .2 of a deviation


def smooth_measure(records: Measured, temperature: float) -> SmoothMeasure:
    """The smooth measure of `records` by their form, as `tasks.measure` takes the measure."""
    columns, labels = records.columns, records.labels
    if taught := getattr(records, "taught", None):
        return taught[0]
    if labels is None:
        return Ranking(columns, temperature, own=records.own_candidates)
    if len(columns) == 1:
        return ClassMeans(columns[0], labels, temperature)
    if labels.is_floating_point():
        return GradedPairs(columns[0], columns[1], labels, GRADED * temperature)
    return LabelledPairs(columns[0], columns[1], labels, LABELLED * temperature)
