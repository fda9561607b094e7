"""Bitext: a sentence and its translation, each to be found by the other; and summarization, learnt the same
way.

Record: `sentence1`, `sentence2`. Sets with one field `translation` of two languages (`{"de": …, "fr": …}`)
    are taken in the order of their languages.
Batch: records no two of which share a text, so that no translation is another's negative. Loss: InfoNCE in
    both directions, the mean of finding sentence2 by sentence1 and sentence1 by sentence2 in the batch: the
    translation ranking loss of Guo et al. 2018 (arXiv 1807.11906) and LaBSE (Feng et al. 2022, arXiv
    2007.01852), without their additive margin, and with cosine over τ in place of their dot product.
Validation: nDCG@10 of finding the translation. MTEB's measure is the F1 of taking the nearest, which is
    coarser on few records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks.task import TaskType, register

if TYPE_CHECKING:
    from datasets import Dataset


@register
class Bitext(TaskType):
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

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        return self.canonical(dataset)


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

    A summary says the same as its text in another form, as a translation does in another language, and MTEB
    compares summaries by plain cosine, in which no side is the query. Validation: nDCG@10 of finding the
    summary. MTEB's measure, the correlation of cosine with people's grades, needs graded pairs, which can be
    trained on as sts.
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

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        return self.canonical(dataset)
