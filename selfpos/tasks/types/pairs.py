"""Pairs of texts: graded, labelled, or a text and its translation or summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import forms, labels
from selfpos.tasks.task import TaskType, register
from selfpos.tasks.types.retrieval import Retrieval

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from selfpos.recipe import PositioningSettings, TrainingSettings


class GradedPairs(TaskType):
    """Two texts and a number, learnt from the order of the cosines."""

    text_columns = ("sentence1", "sentence2")
    loss_name = "cosent"
    #: label of an inference set: its number
    grades: ClassVar[Mapping[str, float]]

    def _graded(self, dataset: Dataset, columns: Mapping[str, str] | None) -> Dataset:
        """The pairs of an inference set with their numbers; other data as it is."""
        if columns or not forms.is_nli(dataset, str(self.target)):
            return dataset
        return forms.graded_pairs(dataset, self.grades, str(self.target))

    def forms_of(self, present: Sequence[str]) -> list[str]:
        return forms.nli_columns(present)

    def _with_target(self, dataset: Dataset, values: list[Any]) -> Dataset:
        return dataset.select_columns(list(self.text_columns)).add_column(self.target, values)


@register
class Sts(GradedPairs):
    """Record: `sentence1`, `sentence2`, `score` (a number, larger is more similar, any range). Of an
    inference set (premise, hypothesis, label): entailment 1, neutral 0.5, contradiction 0.

    Loss: CoSENT, log(1 + Σ exp((s_kl − s_ij)/τ)) over all couples of pairs in the batch where (i, j) has the
    higher score: it asks for the right order of cosines, not for their size. With `sts_loss: infonce` the
    InfoNCE of Self Positioning (Li et al. 2024, arXiv 2410.15035), which knows positives only: pairs graded
    at least `sts_positive`, with the other texts of the batch as negatives; of an inference set premise,
    entailment and contradiction. The paper does not say which pairs are positives. Validation: Spearman
    correlation of cosine and score.
    """

    name = "sts"
    summary = "pairs of texts and how similar they are"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence1": (
            "sentence1", "sentence_a", "sent1", "text1", "text_a", "question1", "anchor", "premise",
        ),
        "sentence2": (
            "sentence2", "sentence_b", "sent2", "text2", "text_b", "question2", "positive", "hypothesis",
        ),
        "score": ("score", "similarity_score", "similarity", "relatedness_score", "labels", "label"),
    }  # fmt: skip
    target = "score"
    mteb_type = "STS"
    grades: ClassVar = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        graded = super().canonical(self._graded(dataset, columns), columns)
        if hasattr(graded.features["score"], "names"):
            graded = forms.labelled(graded, "score")
        scores = _scores(graded)
        if graded.features["score"].dtype in ("string", "large_string"):  # of a CSV
            return self._with_target(graded, scores.tolist())
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
        return self._with_target(dataset, scores.tolist())

    def under(self, settings: TrainingSettings | PositioningSettings) -> TaskType:
        return StsByInfoNCE(settings.sts_positive) if settings.sts_loss == "infonce" else self


def _scores(dataset: Dataset) -> np.ndarray:
    """The scores of canonical records. Raises SelfposError where they are not finite numbers."""
    import numpy as np

    values = dataset["score"][:]
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        strange = next((value for value in values if labels.number(value) is None), values[0])
        raise SelfposError(
            "column 'score' of task type sts must hold numbers, with a point before their decimals, found "
            f"{str(strange)[:60]!r}"
        ) from None
    if not np.isfinite(scores).all():
        raise SelfposError(
            "column 'score' of task type sts holds numbers that are not finite; leave those records out"
        )
    return scores


class StsByInfoNCE(Retrieval):
    """Graded pairs learnt as retrieval: those graded at least `positive`, of 0 to 1, are positives."""

    name = "sts"
    columns = Sts.columns
    mteb_type = "STS"
    asks = False

    def __init__(self, positive: float) -> None:
        self.positive = positive

    def forms_of(self, present: Sequence[str]) -> list[str]:
        return forms.nli_columns(present)

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


@register
class PairClassification(GradedPairs):
    """Record: `sentence1`, `sentence2`, `label` (1 or 0, or true and false), or lists of all three. An
    inference set is taken as MTEB takes it: entailment 1, contradiction 0, neutral left out.

    Loss: CoSENT on the labels, log(1 + Σ exp((s_neg − s_pos)/τ)) over all couples of a pair labelled 0 and a
    pair labelled 1: how well cosine ranks ones above zeros, at no particular threshold. Contrastive losses
    push cosines to fixed margins, which opposes the InfoNCE of the other tasks. The online one is a sum over
    a changing choice of pairs, whose size cannot be compared with other tasks' losses on a probe.
    Validation: average precision of ranking by similarity (MTEB's max_ap).
    """

    name = "pair-classification"
    summary = "pairs of texts that belong together or do not"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence1": (
            "sentence1", "sentence_a", "sent1", "text1", "text_a", "question1", "#1 String", "question",
            "query",
            "anchor", "premise",
        ),
        "sentence2": (
            "sentence2", "sentence_b", "sent2", "text2", "text_b", "question2", "#2 String", "sentence",
            "passage",
             "positive", "hypothesis",
        ),
        "label": ("label", "labels", "is_duplicate", "gold_label", "Quality", "score"),
    }  # fmt: skip
    target = "label"
    mteb_type = "PairClassification"
    grades: ClassVar = {"entailment": 1, "contradiction": 0}

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        graded = self._graded(dataset, columns)
        return forms.labelled(super().canonical(forms.unnested(graded, self, columns), columns), "label")

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        dataset = self.canonical(dataset)
        values = dataset["label"][:]
        if len(set(values)) < 2:
            raise SelfposError(
                f"all {len(values)} pairs are labelled {values[0]}: pair-classification needs both 0 and 1"
            )
        return self._with_target(dataset, values)


@register
class Bitext(TaskType):
    """Record: `sentence1`, `sentence2`, or one field `translation` of two languages, taken in their order.

    Batch: records no two of which share a text. Loss: InfoNCE in both directions: the translation ranking
    loss of Guo et al. 2018 (arXiv 1807.11906) and LaBSE (Feng et al. 2022, arXiv 2007.01852), without their
    additive margin, and with cosine over τ in place of their dot product. Validation: nDCG@10 of finding the
    translation. MTEB's measure is the F1 of taking the nearest, which is coarser on few records.
    """

    name = "bitext"
    summary = "a sentence and its translation"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence1": ("sentence1", "source", "src", "source_text", "english", "text1", "anchor"),
        "sentence2": ("sentence2", "target", "tgt", "target_text", "non_english", "text2", "positive"),
    }
    text_columns = ("sentence1", "sentence2")
    loss_name = "info-nce-both-ways"
    sampler = "no_duplicates"
    mteb_type = "BitextMining"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and "translation" in dataset.column_names:
            dataset = _by_language(dataset)
        return super().canonical(dataset, columns)

    def forms_of(self, present: Sequence[str]) -> list[str]:
        return [name for name in present if name == "translation"]


def _by_language(dataset: Dataset) -> Dataset:
    """The two languages of the column `translation` as sentence1 and sentence2."""
    from datasets import Dataset as Records

    feature = dataset.features["translation"]
    languages = list(feature if isinstance(feature, dict) else getattr(feature, "languages", ()))
    if len(languages) != 2:
        raise SelfposError(
            f"column 'translation' must hold texts in two languages, found {', '.join(languages) or feature}"
        )
    pairs = dataset["translation"][:]
    return Records.from_dict(
        {f"sentence{n}": [pair[language] for pair in pairs] for n, language in enumerate(languages, start=1)}
    )


@register
class Summarization(TaskType):
    """A text and its summary. Batch and loss are those of bitext.

    A summary says the same as its text in another form, and MTEB compares summaries by plain cosine, in which
    no side is the query. MTEB's measure, the correlation of cosine with people's grades, needs graded pairs,
    which can be trained on as sts; validation is nDCG@10 of finding the summary.
    """

    name = "summarization"
    summary = "a text and its summary"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("text", "article", "document", "dialogue", "report", "source", "body"),
        "summary": ("summary", "highlights", "simplified", "abstract", "headline", "target", "title"),
    }
    text_columns = ("text", "summary")
    loss_name = Bitext.loss_name
    sampler = Bitext.sampler
    mteb_type = "Summarization"
