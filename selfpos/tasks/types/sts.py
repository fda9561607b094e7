"""Semantic textual similarity: pairs of texts with a graded similarity.

Record: `sentence1`, `sentence2`, `score` (a number, larger is more similar, any range). An inference set
    (premise, hypothesis, label) is taken too: entailment 1, neutral 0.5, contradiction 0.
Batch: records at random. Loss: CoSENT, log(1 + Σ exp((s_kl − s_ij)/τ)) over all couples of pairs in the batch
    where (i, j) has the higher score: like the measure it asks for the right order of cosines, not for their
    size. With `sts_loss: infonce` the InfoNCE of Self Positioning (Li et al. 2024, arXiv 2410.15035), which
    knows positives only: pairs graded at least `sts_positive`, with the other texts of the batch as
    negatives; of an inference set premise, entailment and contradiction. The paper does not say which pairs
    are positives.
Validation: Spearman correlation of cosine and score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import forms
from selfpos.tasks.task import TaskType, register
from selfpos.tasks.types.retrieval import Retrieval

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from selfpos.recipe import PositioningSettings, TrainingSettings


@register
class Sts(TaskType):
    name = "sts"
    summary = "pairs of texts and how similar they are"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence1": ("sentence1", "sentence_a", "sent1", "text1", "text_a", "question1", "anchor"),
        "sentence2": ("sentence2", "sentence_b", "sent2", "text2", "text_b", "question2", "positive"),
        "score": ("score", "similarity_score", "similarity", "relatedness_score", "labels", "label"),
    }
    text_columns = ("sentence1", "sentence2")
    target = "score"
    loss_name = "cosent"
    mteb_type = "STS"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and forms.is_nli(dataset):
            grades = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
            dataset = forms.graded_pairs(dataset, grades, "score")
        graded = super().canonical(dataset, columns)
        _scores(graded)
        return graded

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """Scores are scaled to 0..1 by the smallest and largest of them, unless they lie there already."""
        dataset = self.canonical(dataset)
        scores = _scores(dataset)
        low, high = scores.min(), scores.max()
        if low == high:
            raise SelfposError(
                f"all {len(scores)} scores are {low:g}: sts needs pairs of different similarity"
            )
        if low < 0 or high > 1:
            scores = (scores - low) / (high - low)
        return dataset.select_columns(list(self.text_columns)).add_column("score", scores.tolist())

    def under(self, settings: TrainingSettings | PositioningSettings) -> TaskType:
        return StsByInfoNCE(settings.sts_positive) if settings.sts_loss == "infonce" else self


def _scores(dataset: Dataset) -> np.ndarray:
    """The scores of canonical records. Raises SelfposError where they are not finite numbers."""
    import numpy as np

    try:
        scores = np.asarray(dataset["score"][:], dtype=np.float64)
    except (TypeError, ValueError):
        raise SelfposError(
            f"column 'score' of task type sts must hold numbers, found {dataset.features['score']}"
        ) from None
    if not np.isfinite(scores).all():
        raise SelfposError("column 'score' of task type sts holds numbers that are not finite")
    return scores


class StsByInfoNCE(Retrieval):
    """Graded pairs learnt as retrieval: those graded at least `positive`, of 0 to 1, are positives."""

    name = "sts"
    columns = Sts.columns
    mteb_type = "STS"
    asks = False

    def __init__(self, positive: float) -> None:
        self.positive = positive

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        """The graded pairs of sts; the pairs and triples of `prepare` are accepted, too."""
        if {"anchor", "positive"} <= set(dataset.column_names):
            return Retrieval().canonical(dataset)
        return Sts().canonical(dataset, columns)

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        if {"anchor", "positive"} <= set(dataset.column_names) or forms.is_nli(dataset):
            return Retrieval().prepare(dataset, seed)
        graded = Sts().prepare(dataset, seed)
        kept = [row for row, score in enumerate(graded["score"][:]) if score >= self.positive]
        if len(kept) < 2:
            raise SelfposError(
                f"{len(kept)} of {len(graded)} pairs are graded {self.positive:g} or more of the scale, "
                "too few for InfoNCE; lower sts_positive"
            )
        pairs = graded.select(kept).select_columns(["sentence1", "sentence2"])
        return pairs.rename_columns({"sentence1": "anchor", "sentence2": "positive"})
