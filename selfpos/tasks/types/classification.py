"""Classification: texts with a label; and clustering, learnt the same way.

Batch: at least two texts of each of at least two labels. Loss: supervised InfoNCE (`selfpos.tasks.losses`).
Validation: accuracy of the nearest class mean. MTEB trains a logistic regression, or measures k-means, which
need more records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks.forms import unnested
from selfpos.tasks.labels import values_of
from selfpos.tasks.task import TaskType, register

if TYPE_CHECKING:
    from datasets import Dataset


@register
class Classification(TaskType):
    """Record: `text`, `label` (a name or a number), or a list of texts and the list of their labels."""

    name = "classification"
    summary = "texts with a label"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": (
            "text", "sentence", "content", "sentences", "utterance", "tweet", "review", "review_body",
            "comment_text", "headline", "title", "question",
        ),
        "label": (
            "label", "labels", "label_text", "intent", "category", "coarse_label", "label-coarse", "topic",
            "sentiment", "emotion", "stars", "class",
        ),
    }  # fmt: skip
    text_columns = ("text",)
    target = "label"
    loss_name = "supervised-info-nce"
    sampler = "group_by_label"
    mteb_type = "Classification"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        records = super().canonical(unnested(dataset, self, columns), columns)
        # names, for the numbers of one data set may mean other classes than those of the next
        named = values_of(records, "label")
        rows = [row for row, label in enumerate(named) if label is not None and label == label]  # nor NaN
        if len(rows) == len(records) and not hasattr(records.features["label"], "names"):
            return records
        kept = records.select(rows).select_columns(["text"])
        return kept.add_column("label", [named[row] for row in rows])

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """Labels become 0, 1, … in the order of their names."""
        dataset = self.canonical(dataset)
        labels = dataset["label"][:]
        usable = [label for label, count in Counter(labels).items() if count >= 2]
        if len(usable) < 2:
            raise SelfposError(
                f"task type {self.name} needs at least 2 labels with 2 texts each, "
                f"found {len(usable)} in {len(labels)} records"
            )
        names = sorted(set(labels), key=lambda label: (str(type(label)), label))
        numbers = {label: number for number, label in enumerate(names)}
        return dataset.select_columns(["text"]).add_column("label", [numbers[label] for label in labels])


@register
class Clustering(Classification):
    """Texts with the name of their group: what pulls them together for a classifier does so for k-means."""

    name = "clustering"
    summary = "texts with the name of their group"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("text", "sentences", "sentence", "title", "content", "abstract", "headline"),
        "label": ("label", "labels", "label_text", "cluster", "topic", "category", "categories", "class"),
    }
    mteb_type = "Clustering"
