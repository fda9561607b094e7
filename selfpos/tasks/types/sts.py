"""Semantic textual similarity: pairs of texts with a graded similarity.

Record: `sentence1`, `sentence2`, `score` (a number, larger is more similar, any range). An inference set (premise, hypothesis, label)
    is taken too: entailment 1, neutral 0.5, contradiction 0.
Batch: records at random.
Loss: CoSENT, log(1 + Σ exp((s_kl − s_ij)/τ)) over all couples of pairs in the batch where (i, j) has the higher score: it asks for the
    right order of cosines, as the measure does, and not for their size. By choice (`sts_loss: infonce`) the InfoNCE of Self Positioning
    (Li et al. 2024, arXiv 2410.15035), which knows positives only: pairs graded at least `sts_positive`, the other texts of the batch being
    negatives; of an inference set premise, entailment and contradiction. Which pairs are positives the paper does not say.
Validation: Spearman correlation of cosine and score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import draws, nli
from selfpos.tasks.registry import register
from selfpos.tasks.task import TaskType
from selfpos.tasks.types.retrieval import Retrieval

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

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
    measure = "cosine_spearman"
    mteb_type = "STS"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and nli.is_nli(dataset):
            from datasets import Dataset as Records

            pairs = nli.graded_pairs(dataset, {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0})
            dataset = Records.from_dict(
                {"sentence1": pairs["sentence1"], "sentence2": pairs["sentence2"], "score": pairs["grade"]}
            )
        graded = super().canonical(dataset, columns)
        _scores(graded)
        return graded

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """Scores are brought to 0..1 by the smallest and largest found, unless they lie there already."""
        dataset = self.canonical(dataset)
        scores = _scores(dataset)
        low, high = scores.min(), scores.max()
        if low == high:
            raise SelfposError(
                f"all {len(scores)} scores are {low:g}: sts needs pairs of different similarity"
            )
        if low < 0 or high > 1:
            scores = (scores - low) / (high - low)
        texts = dataset.select_columns(list(self.text_columns))
        return texts.add_column("score", scores.tolist())

    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        return CoSENTLoss(model, scale=1 / temperature)

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        return draws.distinct_targets(dataset, "score", batch_size, generator)

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
    """Graded pairs learnt as retrieval is: those graded at least `positive` (0 to 1) are found among the texts of the batch."""

    name = "sts"
    columns = Sts.columns
    mteb_type = "STS"
    asks = False

    def __init__(self, positive: float) -> None:
        self.positive = positive

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        """The graded pairs of sts; pairs and triples that `prepare` made of them are left as they are."""
        if {"anchor", "positive"} <= set(dataset.column_names):
            return _PAIRS.canonical(dataset)
        return _GRADED.canonical(dataset, columns)

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        if {"anchor", "positive"} <= set(dataset.column_names) or nli.is_nli(dataset):
            return _PAIRS.prepare(dataset, seed)
        graded = _GRADED.prepare(dataset, seed)
        kept = [row for row, score in enumerate(graded["score"][:]) if score >= self.positive]
        if len(kept) < 2:
            raise SelfposError(
                f"{len(kept)} of {len(graded)} pairs are graded {self.positive:g} or more of the scale, too few for InfoNCE; lower sts_positive"
            )
        return (
            graded.select(kept)
            .select_columns(["sentence1", "sentence2"])
            .rename_columns({"sentence1": "anchor", "sentence2": "positive"})
        )


_GRADED, _PAIRS = Sts(), Retrieval()
