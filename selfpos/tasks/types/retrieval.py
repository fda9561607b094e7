"""Retrieval: a question, or any short text, and a text that answers it.

Record: `anchor`, `positive`, and hard negatives where there are any: `negative`, `negative_2`, … one column
    each, or one column of lists. Where a `label` says which pairs are right (1) and which are not (0), as in
    WikiQA and QNLI, the right ones are taken. From a list of positives each gives a record; from a list of
    negatives one is drawn for each record. An inference set (premise, hypothesis, label) is taken too: the
    premise, something it entails, something that contradicts it.
Batch: records no two of which share a text, so that no positive is another's negative. Loss: InfoNCE, −log(
    exp(q·p/τ) / Σ exp(q·d/τ) ), d over all positives and hard negatives of the batch (van den Oord et al.
    2018, arXiv 1807.03748; sentence-transformers' MultipleNegativesRankingLoss at scale 1/τ).
Validation: nDCG@10.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.tasks import forms
from selfpos.tasks.task import TaskType, register

if TYPE_CHECKING:
    from datasets import Dataset

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
    loss_name = "info-nce"
    sampler = "no_duplicates"
    mteb_type = "Retrieval"
    asks = True

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and forms.is_nli(dataset):
            dataset = forms.triples(dataset)
        elif "label" in dataset.column_names:
            dataset = _right_pairs(forms.to_binary_labels(dataset))
        result = super().canonical(dataset, columns)
        numbered = [column for column in dataset.column_names if _NUMBERED.match(column)]
        numbered.sort(key=lambda name: (len(name), name))
        for number, column in enumerate(numbered, start=1 + ("negative" in result.column_names)):
            name = "negative" if number == 1 else f"negative_{number}"
            result = result.add_column(name, dataset[column][:])
            self._check(result, name, column)
        return result

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        from datasets import Dataset as Records

        dataset = self.canonical(dataset)
        lists = {
            column: column in dataset.column_names and forms.is_list(dataset, column)
            for column in ("positive", "negative")
        }
        if not any(lists.values()):
            return dataset
        draw = random.Random(seed)
        kept: dict[str, list[str]] = {column: [] for column in dataset.column_names}
        for record in dataset:
            if lists["negative"] and not record["negative"]:
                continue
            for positive in record["positive"] if lists["positive"] else [record["positive"]]:
                chosen = record | {"positive": positive}
                if lists["negative"]:
                    chosen["negative"] = draw.choice(record["negative"])
                for column, values in kept.items():
                    values.append(chosen[column])
        return self.canonical(Records.from_dict(kept))


def _right_pairs(dataset: Dataset) -> Dataset:
    """The records labelled 1 where all are labelled 1 or 0; any other label is about something else."""
    labels = dataset["label"][:]
    if set(map(str, labels)) != {"0", "1"}:
        return dataset
    return dataset.select([row for row, label in enumerate(labels) if str(label) == "1"])
