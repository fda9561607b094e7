"""Pair classification: pairs of texts that belong together or do not.

Record: `sentence1`, `sentence2`, `label` (1 or 0, or true and false). An inference set (premise, hypothesis,
    label) is taken as MTEB takes it: entailment 1, contradiction 0, neutral left out; one of two labels, with
    entailment as its 0 (QNLI, RTE), is turned around. A record may also hold lists of all three, as older
    sets on the Hub do.
Batch: records at random. Loss: CoSENT on the labels, log(1 + Σ exp((s_neg − s_pos)/τ)) over all couples of a
    pair labelled 0 and a pair labelled 1. Like the measure it asks how well cosine ranks ones above zeros, at
    no particular threshold. Contrastive and online contrastive loss push cosines to fixed margins, which
    opposes the InfoNCE of the other tasks; the online one is also a sum over a changing choice of hard pairs,
    whose size cannot be compared with other tasks' losses on a probe.
Validation: average precision of ranking by similarity (MTEB's max_ap).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import forms
from selfpos.tasks.task import TaskType, register

if TYPE_CHECKING:
    from datasets import Dataset

NUMBERS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1}


@register
class PairClassification(TaskType):
    name = "pair-classification"
    summary = "pairs of texts that belong together or do not"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence1": (
            "sentence1", "sentence_a", "sent1", "text1", "text_a", "question1", "question", "query", "anchor",
        ),
        "sentence2": (
            "sentence2", "sentence_b", "sent2", "text2", "text_b", "question2", "sentence", "passage",
            "positive",
        ),
        "label": ("label", "labels", "is_duplicate", "score"),
    }  # fmt: skip
    text_columns = ("sentence1", "sentence2")
    target = "label"
    loss_name = "cosent"
    mteb_type = "PairClassification"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and forms.is_nli(dataset):
            dataset = forms.graded_pairs(dataset, {"entailment": 1, "contradiction": 0}, "label")
        return super().canonical(forms.unnested(forms.to_binary_labels(dataset), self, columns), columns)

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        dataset = self.canonical(dataset)
        if strange := sorted(str(label) for label in dataset.unique("label") if str(label) not in NUMBERS):
            raise SelfposError(
                f"labels of task type pair-classification are 0 and 1, found {', '.join(strange[:5])}"
            )
        labels = [NUMBERS[str(label)] for label in dataset["label"]]
        if len(set(labels)) < 2:
            raise SelfposError(
                f"all {len(labels)} pairs are labelled {labels[0]}: pair-classification needs both 0 and 1"
            )
        return dataset.select_columns(list(self.text_columns)).add_column("label", labels)
