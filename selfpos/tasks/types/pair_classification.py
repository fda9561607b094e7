"""Pair classification: pairs of texts that belong together or do not.

Record: `sentence1`, `sentence2`, `label` (1 or 0, or true and false). An inference set (premise, hypothesis, label) is taken as MTEB
    takes it: entailment 1, contradiction 0, neutral left out; one of two labels, with entailment as its 0 (QNLI, RTE), is turned. A record may also hold lists of all three, as older sets on the Hub do.
Batch: records at random.
Loss: CoSENT on the labels, log(1 + Σ exp((s_neg − s_pos)/τ)) over all couples of a pair labelled 0 and a pair labelled 1. The measure
    asks how well cosine ranks ones above zeros, at no particular threshold, and so does this loss. Contrastive and online contrastive loss
    push cosines to fixed margins instead, which pulls against the InfoNCE of the other tasks; the online one, besides, is a sum over a
    changing choice of hard pairs, whose size could not be compared with the other tasks' on a probe.
Validation: average precision of ranking by similarity (MTEB's max_ap).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import draws, nli
from selfpos.tasks.nested import unnested
from selfpos.tasks.registry import register
from selfpos.tasks.task import TaskType

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer


@register
class PairClassification(TaskType):
    name = "pair-classification"
    summary = "pairs of texts that belong together or do not"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "sentence1": (
            "sentence1",
            "sentence_a",
            "sent1",
            "text1",
            "text_a",
            "question1",
            "question",
            "query",
            "anchor",
        ),
        "sentence2": (
            "sentence2",
            "sentence_b",
            "sent2",
            "text2",
            "text_b",
            "question2",
            "sentence",
            "passage",
            "positive",
        ),
        "label": ("label", "labels", "is_duplicate", "score"),
    }
    text_columns = ("sentence1", "sentence2")
    target = "label"
    measure = "max_ap"
    mteb_type = "PairClassification"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and nli.is_nli(dataset):
            from datasets import Dataset as Records

            pairs = nli.graded_pairs(dataset, {"entailment": 1, "contradiction": 0})
            dataset = Records.from_dict(
                {"sentence1": pairs["sentence1"], "sentence2": pairs["sentence2"], "label": pairs["grade"]}
            )
        return super().canonical(unnested(nli.ones(dataset), self, columns), columns)

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        dataset = self.canonical(dataset)
        found = set(dataset.unique("label"))
        numbers = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1}
        if strange := sorted(str(label) for label in found if str(label) not in numbers):
            raise SelfposError(
                f"labels of task type pair-classification are 0 and 1, found {', '.join(strange[:5])}"
            )
        labels = [numbers[str(label)] for label in dataset["label"]]
        if len(set(labels)) < 2:
            raise SelfposError(
                f"all {len(labels)} pairs are labelled {labels[0]}: pair-classification needs both 0 and 1"
            )
        return dataset.select_columns(list(self.text_columns)).add_column("label", labels)

    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        return CoSENTLoss(model, scale=1 / temperature)

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        return draws.distinct_targets(dataset, "label", batch_size, generator)
