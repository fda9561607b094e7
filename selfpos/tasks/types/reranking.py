"""Reranking: a question, texts that answer it and texts that do not though they look like answers.

Record: `query`, `positive` (a list of texts, or one), `negative` (a list of texts, or one). Sets with one
    candidate a record and a label (1 or 0: whether it answers), as WikiQA on the Hub, are gathered by
    question. For the loss a record becomes triples of anchor, positive, negative, until each of its positives
    and negatives is used; the order within a record is shuffled. A record without a positive or without a
    negative is left out.
Batch: triples no two of which share a text, so each comes from another question. Loss: InfoNCE as in
    retrieval; the other triples' positives and negatives are negatives, too. Validation: nDCG@10 of finding
    the positive among those of all records. MTEB's measure is mean average precision over each question's
    candidates.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.tasks import forms
from selfpos.tasks.task import TaskType, register

if TYPE_CHECKING:
    from datasets import Dataset

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
    loss_name = "info-nce"
    sampler = "no_duplicates"
    mteb_type = "Reranking"
    asks = True

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        has_negatives = any(name in dataset.column_names for name in self.columns["negative"])
        if not columns and "label" in dataset.column_names and not has_negatives:
            dataset = self._by_question(dataset)
        return super().canonical(dataset, columns)

    def _by_question(self, dataset: Dataset) -> Dataset:
        """Candidates gathered by question; without questions whose candidates are all right or all wrong."""
        from datasets import Dataset as Records

        questions = [name for name in self.columns["query"] if name in dataset.column_names]
        candidates = [name for name in CANDIDATES if name in dataset.column_names]
        if not questions or not candidates:
            return dataset
        dataset = forms.to_binary_labels(dataset)
        labels = {str(label) for label in dataset.unique("label")}
        if not labels <= {"0", "1", "False", "True"}:
            raise SelfposError(
                "a reranking set with a label has 1 for candidates that answer and 0 for others, "
                f"found {', '.join(sorted(labels))}"
            )
        sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        columns = (dataset[name] for name in (questions[0], candidates[0], "label"))
        for query, candidate, label in zip(*columns, strict=True):
            sides[query][int(label)].append(candidate)
        both = {query: side for query, side in sides.items() if all(side)}
        return Records.from_dict(
            {
                "query": list(both),
                "positive": [right for _, right in both.values()],
                "negative": [wrong for wrong, _ in both.values()],
            }
        )

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        from datasets import Dataset as Records

        dataset = self.canonical(dataset)
        order = random.Random(seed)
        columns: dict[str, list[str]] = {column: [] for column in self.text_columns}
        left_out = 0
        for record in dataset:
            sides = []
            for side in (record["positive"], record["negative"]):
                sides.append([side] if isinstance(side, str) else list(side))
                order.shuffle(sides[-1])
            pairs = forms.cycled(*sides)
            for texts in pairs:
                for column, text in zip(self.text_columns, (record["query"], *texts), strict=True):
                    columns[column].append(text)
            left_out += not pairs
        if left_out:
            log.info(
                "reranking: %d of %d records have no positive or no negative and are left out",
                left_out,
                len(dataset),
            )
        if not columns["anchor"]:
            raise SelfposError(
                f"none of the {len(dataset)} records of the reranking set has both a positive and a negative"
            )
        return Records.from_dict(columns)
