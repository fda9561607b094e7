"""Bitext: a sentence and its translation, each to be found by the other.

Record: `sentence1`, `sentence2`. Sets with one field `translation` of two languages (as `{"de": …, "fr": …}`) are taken in the order of
    its languages.
Batch: records no two of which share a text, so that nobody's translation is another's negative.
Loss: InfoNCE in both directions, the mean of finding sentence2 by sentence1 and sentence1 by sentence2 among those of the batch: the
    translation ranking loss of Guo et al. 2018 (arXiv 1807.11906) and LaBSE (Feng et al. 2022, arXiv 2007.01852), without their additive
    margin, and with cosine over τ in place of their dot product.
Validation: nDCG@10 of finding the translation; MTEB's own measure is the F1 of taking the nearest, which is less fine on few records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import draws
from selfpos.tasks.registry import register
from selfpos.tasks.task import TaskType

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer


@register
class Bitext(TaskType):
    name = "bitext"
    summary = "a sentence and its translation"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence1": ("sentence1", "source", "src", "source_text", "english", "text1", "anchor"),
        "sentence2": ("sentence2", "target", "tgt", "target_text", "non_english", "text2", "positive"),
    }
    text_columns = ("sentence1", "sentence2")
    sampler = "no_duplicates"
    measure = "f1"
    mteb_type = "BitextMining"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and "translation" in dataset.column_names:
            dataset = _by_language(dataset)
        return super().canonical(dataset, columns)

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        return self.canonical(dataset)

    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        both_ways = ("query_to_doc", "doc_to_query")
        return MultipleNegativesRankingLoss(
            model, scale=1 / temperature, directions=both_ways, partition_mode="per_direction"
        )

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        return draws.distinct_texts(dataset, self.text_columns, batch_size, generator)


def _by_language(dataset: Dataset) -> Dataset:
    """The two languages of the column `translation` as sentence1 and sentence2. Raises SelfposError unless there are two."""
    from datasets import Dataset as Records

    feature = dataset.features["translation"]
    languages = list(feature if isinstance(feature, dict) else getattr(feature, "languages", ()))
    if len(languages) != 2:
        raise SelfposError(
            f"column 'translation' must hold texts in two languages, found {', '.join(languages) or feature}"
        )
    pairs = dataset["translation"][:]
    return Records.from_dict(
        {
            f"sentence{place}": [pair[language] for pair in pairs]
            for place, language in enumerate(languages, start=1)
        }
    )
