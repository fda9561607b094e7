"""Classification: texts with a label.

Record: `text`, `label` (a name or a number). A record may also hold a list of texts and the list of their labels, as clustering sets on
    the Hub do.
Batch: at least two texts of each of at least two labels, so that every text has a positive and negatives of other labels only.
Loss: supervised InfoNCE (see `selfpos.tasks.losses`).
Validation: accuracy of a logistic regression on the embeddings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import draws
from selfpos.tasks.nested import unnested
from selfpos.tasks.registry import register
from selfpos.tasks.task import TaskType

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer


@register
class Classification(TaskType):
    name = "classification"
    summary = "texts with a label"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": (
            "text", "sentence", "content", "sentences", "utterance", "tweet", "review", "review_body", "comment_text", "headline", "title",
            "question",
        ),
        "label": (
            "label", "labels", "label_text", "intent", "category", "coarse_label", "label-coarse", "topic", "sentiment", "emotion", "stars",
            "class",
        ),
    }  # fmt: skip
    text_columns = ("text",)
    target = "label"
    sampler = "group_by_label"
    measure = "accuracy"
    mteb_type = "Classification"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        return super().canonical(unnested(dataset, self, columns), columns)

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """Labels become 0, 1, … in the order of their names."""
        dataset = self.canonical(dataset)
        given = dataset["label"][:]
        usable = [label for label, count in Counter(given).items() if count >= 2]
        if len(usable) < 2:
            raise SelfposError(
                f"task type {self.name} needs at least 2 labels with 2 texts each, found {len(usable)} in {len(given)} records"
            )
        numbers = {
            label: number
            for number, label in enumerate(sorted(set(given), key=lambda label: (str(type(label)), label)))
        }
        return dataset.select_columns(["text"]).add_column("label", [numbers[label] for label in given])

    def loss(self, model: SentenceTransformer, temperature: float) -> torch.nn.Module:
        from selfpos.tasks.losses import SupervisedInfoNCELoss

        return SupervisedInfoNCELoss(model, temperature)

    def draw(self, dataset: Dataset, batch_size: int, generator: torch.Generator) -> dict[str, list[Any]]:
        return draws.label_pairs(dataset, batch_size, generator)
