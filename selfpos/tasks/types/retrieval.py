"""Retrieval: a question, or any short text, and a text that answers it.

Record: `anchor`, `positive`, and hard negatives where there are any: `negative`, `negative_2`, … one column each, or one column of lists.
    Where a `label` says which pairs are right (1) and which are not (0), as in WikiQA and QNLI, the right ones are taken.
    From a list of positives each gives a record; from a list of negatives one is drawn for each record. An inference set (premise,
    hypothesis, label) is taken too: the premise, something it entails, something that contradicts it.
Batch: records no two of which share a text, so that nobody's positive is another's negative.
Loss: InfoNCE, −log( exp(q·p/τ) / Σ exp(q·d/τ) ), d over all positives and hard negatives of the batch (van den Oord et al. 2018,
    arXiv 1807.03748; sentence-transformers' MultipleNegativesRankingLoss at scale 1/τ).
Validation: nDCG@10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.tasks import draws, nli
from selfpos.tasks.registry import register
from selfpos.tasks.task import TaskType

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

_NUMBERED = re.compile(r"^neg(?:ative)?_?(\d+)$")


@register
class Retrieval(TaskType):
    name = "retrieval"
    summary = "a question and a text that answers it, with or without hard negatives"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "anchor": ("anchor", "query", "question", "title"),
        "positive": ("positive", "pos", "positives", "answer", "passage", "document", "context", "body"),
        "negative": ("negative", "neg", "negatives", "hard_negative", "hard_negatives"),
    }
    optional = frozenset({"negative"})
    listed = frozenset({"positive", "negative"})
    text_columns = ("anchor", "positive", "negative")
    sampler = "no_duplicates"
    measure = "ndcg_at_10"
    mteb_type = "Retrieval"
    asks = True

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and nli.is_nli(dataset):
            from datasets import Dataset as Records

            dataset = Records.from_dict(nli.triples(dataset))
        elif "label" in dataset.column_names:
            dataset = _right_pairs(nli.ones(dataset))
        result = super().canonical(dataset, columns)
        numbered = sorted(
            (column for column in dataset.column_names if _NUMBERED.match(column)),
            key=lambda name: (len(name), name),
        )
        for place, column in enumerate(numbered, start=1 + ("negative" in result.column_names)):
            name = "negative" if place == 1 else f"negative_{place}"
            result = result.add_column(name, dataset[column][:])
            self._check(result, name, column)
        return result

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        dataset = self.canonical(dataset)
        listed = [
            column
            for column in ("positive", "negative")
            if column in dataset.column_names and _is_list(dataset, column)
        ]
        if not listed:
            return dataset
        import random

        from datasets import Dataset as Records

        draw = random.Random(seed)
        kept: dict[str, list[str]] = {column: [] for column in dataset.column_names}
        for record in dataset:
            positives = record["positive"] if "positive" in listed else [record["positive"]]
            if "negative" in listed and not record["negative"]:
                continue
            for positive in positives:
                chosen = record | {"positive": positive}
                if "negative" in listed:
                    chosen["negative"] = draw.choice(record["negative"])
                for column, values in kept.items():
                    values.append(chosen[column])
        return self.canonical(Records.from_dict(kept))

    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        return MultipleNegativesRankingLoss(model, scale=1 / temperature)

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        return draws.distinct_texts(dataset, self.texts_of(dataset.column_names), batch_size, generator)


def _right_pairs(dataset: Dataset) -> Dataset:
    """Those labelled 1 where all are labelled 1 or 0; any other label is about something else."""
    labels = dataset["label"][:]
    if set(map(str, labels)) != {"0", "1"}:
        return dataset
    return dataset.select([row for row, label in enumerate(labels) if str(label) == "1"])


def _is_list(dataset: Dataset, column: str) -> bool:
    return getattr(dataset.features[column], "feature", None) is not None
