"""Reranking: a question, texts that answer it and texts that do not though they look as if.

Record: `query`, `positive` (a list of texts, or one), `negative` (a list of texts, or one). Sets with one candidate a record and a label
    (1 or 0: whether it answers), as WikiQA on the Hub, are gathered by question.
    For the loss a record becomes triples of anchor, positive, negative, until each of its positives and negatives has served once;
    the order within a record is shuffled. A record without a positive or without a negative is left out.
Batch: triples no two of which share a text, so each comes from another question.
Loss: InfoNCE as in retrieval, the other triples' positives and negatives serving as negatives too.
Validation: mean average precision over each question's own candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.tasks import draws, nli
from selfpos.tasks.registry import register
from selfpos.tasks.task import TaskType

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

#: columns with one candidate a record
CANDIDATES = ("answer", "passage", "sentence", "document", "candidate")


@register
class Reranking(TaskType):
    name = "reranking"
    summary = "a question, texts that answer it, texts that do not"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "query": ("query", "anchor", "question"),
        "positive": ("positive", "pos", "positives"),
        "negative": ("negative", "neg", "negatives"),
    }
    listed = frozenset({"positive", "negative"})
    text_columns = ("anchor", "positive", "negative")
    sampler = "no_duplicates"
    measure = "map"
    mteb_type = "Reranking"
    asks = True

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if (
            not columns
            and "label" in dataset.column_names
            and not any(name in dataset.column_names for name in self.columns["negative"])
        ):
            dataset = self._by_question(dataset)
        return super().canonical(dataset, columns)

    def _by_question(self, dataset: Dataset) -> Dataset:
        """Candidates one a record, gathered by question; questions whose candidates are all right or all wrong teach nothing and are left out."""
        from datasets import Dataset as Records

        asks, answers = (
            next((name for name in names if name in dataset.column_names), None)
            for names in (self.columns["query"], CANDIDATES)
        )
        if asks is None or answers is None:
            return dataset
        dataset = nli.ones(dataset)
        labels = {str(label) for label in dataset.unique("label")}
        if not labels <= {"0", "1", "False", "True"}:
            raise SelfposError(
                f"a reranking set with a label has 1 for candidates that answer and 0 for others, found {', '.join(sorted(labels))}"
            )
        sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for query, answer, label in zip(dataset[asks], dataset[answers], dataset["label"], strict=True):
            sides[query][int(label)].append(answer)
        both = {query: found for query, found in sides.items() if all(found)}
        negatives, positives = ([found[label] for found in both.values()] for label in (0, 1))
        return Records.from_dict({"query": list(both), "positive": positives, "negative": negatives})

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        import random

        from datasets import Dataset as Records

        dataset = self.canonical(dataset)
        order = random.Random(seed)
        triples: list[tuple[str, str, str]] = []
        left_out = 0
        for record in dataset:
            positives, negatives = (
                [record[side]] if isinstance(record[side], str) else list(record[side])
                for side in ("positive", "negative")
            )
            order.shuffle(positives)
            order.shuffle(negatives)
            pairs = nli.cycled(positives, negatives)
            triples += [(record["query"], positive, negative) for positive, negative in pairs]
            left_out += not pairs
        if left_out:
            log.info(
                "reranking: %d of %d records have no positive or no negative and are left out",
                left_out,
                len(dataset),
            )
        if not triples:
            raise SelfposError(
                f"none of the {len(dataset)} records of the reranking set has both a positive and a negative"
            )
        return Records.from_dict(
            {column: [triple[place] for triple in triples] for place, column in enumerate(self.text_columns)}
        )

    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        return MultipleNegativesRankingLoss(model, scale=1 / temperature)

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        return draws.distinct_texts(dataset, self.text_columns, batch_size, generator)
