"""What MTEB measures, made smooth: per record, differentiable in the embeddings, lower is better.

A search needs a slope, and a measure of a hundred records moves in steps of a point. How well each stand-in
follows the test score, beside the losses that tasks are trained with: benchmarks/study/objectives.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from selfpos.tasks.measure import rows_by

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
    #: why no record has a value, where none has, and what to do
    lacking = "no record has a wrong text to rank its positive above; give records with other answers"

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
    """Labelled texts: −log of the softmax of the cosines with the class means, the text itself left out.

    A classifier takes the nearest class at any scale, so cosines are in units of their deviation from the
    text's mean. As they are, they would reward vectors that only spread the embeddings.
    """

    lacking = "no two texts share a label; give two texts or more of a label"

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
        judged = counts[self.class_of] > among.long()
        rest = functional.normalize(sums[self.class_of] - units * among[:, None].to(units), dim=1)
        in_class = functional.one_hot(self.class_of, self.class_count).bool()
        cosines = torch.where(
            in_class, (units * rest).sum(1, keepdim=True), units @ functional.normalize(sums, dim=1).T
        )
        judgeable = torch.where(in_class, judged[:, None], counts > 0)
        scaled = cosines / (_spread(cosines[others], judgeable[others]) * self.temperature)
        rows = rows[judged[rows]]
        shares = torch.log_softmax(scaled[rows].masked_fill(~judgeable[rows], -torch.inf), dim=1)
        return rows, -shares.gather(1, self.class_of[rows, None])[:, 0]


class GradedPairs(SmoothMeasure):
    """Graded pairs: how far the order of their cosines is from the order of the grades.

    Cosines are taken in units of their standard deviation, since Spearman's correlation knows no scale. The
    value of a pair is the mean of log(1 + exp((s_low − s_high)/τ)) over the other pairs of another grade.
    """

    lacking = "all are graded alike; give pairs of two grades or more"

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


def compared(left: Tensor, right: Tensor, similarity: str) -> Tensor:
    """The similarity (n, m) of embeddings (n, d) and (m, d), by sentence-transformers' name of it."""
    if similarity in NORMS:
        exact = "donot_use_mm_for_euclid_dist"  # products of long embeddings lose short distances
        return -torch.cdist(left, right, p=NORMS[similarity], compute_mode=exact)
    if similarity == "cosine":
        left, right = functional.normalize(left, dim=1), functional.normalize(right, dim=1)
    return left @ right.T


def _spread(similarities: Tensor, judgeable: Tensor) -> Tensor:
    """The standard deviation of those `similarities` that are `judgeable` from the mean of their row."""
    counts = judgeable.sum(1, keepdim=True)
    kept = torch.where(judgeable, similarities, 0)
    gaps = torch.where(judgeable, similarities - kept.sum(1, keepdim=True) / counts.clamp_min(1), 0)
    return (gaps.square().sum() / counts.sum().clamp_min(1) + 1e-12).sqrt()


class Ranking(SmoothMeasure):
    """Pairs of an anchor and its positive: −log of the softmax of the positive's similarity among all texts
    but other positives of the anchor. Cosines are taken as they are; other similarities have no scale, so
    they are in units of their deviation from the anchor's mean.

    Attributes:
        candidates: which texts an anchor's positives are ranked among, (anchors, texts).
        anchor, positive: the rows of each pair's anchor and of its text, (pairs,).
    """

    anchor: Tensor

    def __init__(
        self, columns: Sequence[Sequence[str]], temperature: float, similarity: str = "cosine"
    ) -> None:
        self.temperature, self.similarity = temperature, similarity
        anchors, positives = columns[0], columns[1]
        answers = _by_anchor(anchors, positives)
        index = self._index(anchors, columns)
        self.anchor = torch.arange(len(anchors))
        self.positive = torch.tensor([index[text] for text in positives])
        self.candidates = torch.ones(len(anchors), len(index), dtype=torch.bool)
        for row, anchor in enumerate(anchors):
            self.candidates[row, [index[text] for text in answers[anchor]]] = False
        self.sharing = [set(pair) for pair in zip(anchors, positives, strict=True)]

    def _index(self, anchors: Sequence[str], columns: Sequence[Sequence[str]]) -> dict[str, int]:
        """The row of each text that may be found."""
        texts = list(dict.fromkeys(text for column in columns[1:] for text in column))
        self.texts = [*anchors, *texts]
        return {text: row for row, text in enumerate(texts)}

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of all `rows` with a negative. The candidates are those of all records."""
        rows = rows[self.candidates.any(1)[rows]]
        similarities = compared(embeddings[: self.count], embeddings[self.count :], self.similarity)
        similarities = similarities / (self._unit(similarities, others) * self.temperature)
        index = torch.full((self.count,), -1)
        index[rows] = torch.arange(len(rows))
        pairs = torch.nonzero(index[self.anchor] >= 0)[:, 0]
        negative = similarities.masked_fill(~self.candidates, -torch.inf).logsumexp(1)[self.anchor[pairs]]
        positive = similarities[self.anchor[pairs], self.positive[pairs]]
        costs = torch.logaddexp(positive, negative) - positive
        at = index[self.anchor[pairs]]
        sums = costs.new_zeros(len(rows)).index_add(0, at, costs)
        return rows, sums / torch.bincount(at, minlength=len(rows))

    def _unit(self, similarities: Tensor, others: Tensor) -> Tensor | float:
        return 1.0 if self.similarity == "cosine" else self._deviation(similarities, others)

    def _deviation(self, similarities: Tensor, others: Tensor) -> Tensor:
        judgeable = self.candidates.clone()
        judgeable[self.anchor, self.positive] = True
        return _spread(similarities[others], judgeable[others])


class Reranking(Ranking):
    """Questions with candidates of their own: the mean over a question's positives of −log of the softmax of
    their similarity among its negatives.

    An order knows no scale, so similarities are in units of their deviation from the question's mean.
    """

    def __init__(
        self, columns: Sequence[Sequence[str]], temperature: float, similarity: str = "cosine"
    ) -> None:
        self.temperature, self.similarity = temperature, similarity
        answers = _by_anchor(columns[0], columns[1])
        texts = _by_anchor(columns[0], *columns[1:])
        index = self._index(list(answers), columns)
        pairs = [(row, index[text]) for row, answers_of in enumerate(answers.values()) for text in answers_of]
        self.anchor, self.positive = torch.tensor(pairs).T
        self.candidates = torch.zeros(len(answers), len(index), dtype=torch.bool)
        for row, anchor in enumerate(answers):
            self.candidates[row, [index[text] for text in texts[anchor]]] = True
        self.candidates[self.anchor, self.positive] = False
        self.sharing = [{anchor, *answers_of} for anchor, answers_of in answers.items()]

    def _unit(self, similarities: Tensor, others: Tensor) -> Tensor:
        return self._deviation(similarities, others)


class ScoredPairs(SmoothMeasure):
    """Questions with graded candidates, for a cross-encoder: the mean over a question's right candidates of
    −log of the softmax of their score among its wrong ones.

    An order knows no scale and no level, so scores are in units of their deviation from the question's mean.
    The cross-entropy of the training would reward scores that are only calibrated.

    `texts` are pairs, their embeddings the scores before the activation, (pairs, 1).
    """

    lacking = (
        "no question has both a right and a wrong candidate to be ordered; give questions with both (of "
        "grades, those from 0.5 are right)"
    )

    def __init__(
        self, pairs: Sequence[tuple[str, str]], grades: Tensor, right: float, temperature: float
    ) -> None:
        self.texts: Any = list(pairs)
        self.temperature = temperature
        by_question = rows_by([question for question, _ in pairs])
        most = max(map(len, by_question.values()))
        padded = [numbers + [-1] * (most - len(numbers)) for numbers in by_question.values()]
        self.pairs = torch.tensor(padded)
        self.known = self.pairs >= 0
        self.right = self.known & (grades >= right)[self.pairs]
        self.wrong = self.known & ~self.right
        self.judged = self.right.any(1) & self.wrong.any(1)
        self.sharing = [
            {question, *(pairs[number][1] for number in numbers if grades[number] >= right)}
            for question, numbers in by_question.items()
        ]

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of all `rows` with a right and a wrong candidate."""
        scores = embeddings[:, 0][self.pairs]
        scores = scores / (_spread(scores[others], self.known[others]) * self.temperature)
        rows = rows[self.judged[rows]]
        scores, right = scores[rows], self.right[rows]
        wrong = scores.masked_fill(~self.wrong[rows], -torch.inf).logsumexp(1, keepdim=True)
        costs = (torch.logaddexp(scores, wrong) - scores) * right
        return rows, costs.sum(1) / right.sum(1)


def _by_anchor(anchors: Sequence[str], *columns: Sequence[str]) -> dict[str, dict[str, None]]:
    """Anchor → its distinct texts of `columns`, both in their order."""
    texts: dict[str, dict[str, None]] = {}
    for anchor, *texts_of in zip(anchors, *columns, strict=True):
        texts.setdefault(anchor, {}).update(dict.fromkeys(texts_of))
    return texts


GRADED, LABELLED, CLASSES, RERANKED = 6.0, 4.0, 10.0, 10.0
"""τ of similarities in units of a deviation, over the setting's."""
NORMS = {"euclidean": 2.0, "manhattan": 1.0}
"""Similarities that are distances with a minus → the distance's norm."""


def smooth_measure(records: Measured, temperature: float, similarity: str = "cosine") -> SmoothMeasure:
    """The smooth measure of `records` by their form, as `tasks.measure` takes the measure.

    Texts without labels are ranked by `similarity`, the model's `similarity_fn_name`.
    """
    columns, labels = records.columns, records.labels
    if labels is None:
        in_deviations = records.own_candidates or similarity != "cosine"
        kind = Reranking if records.own_candidates else Ranking
        return kind(columns, (RERANKED if in_deviations else 1) * temperature, similarity)
    if len(columns) == 1:
        return ClassMeans(columns[0], labels, CLASSES * temperature)
    if labels.is_floating_point():
        return GradedPairs(columns[0], columns[1], labels, GRADED * temperature)
    return LabelledPairs(columns[0], columns[1], labels, LABELLED * temperature)
