"""Clustering: texts with the name of the group they should fall into.

Record: `text`, `label` (a name or a number), accepted under the names that clustering sets use; or lists of both, as there.
Batch and loss: those of classification; what pulls texts of a label together for a classifier does so for k-means.
Validation: V-measure of k-means on the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from selfpos.tasks.registry import register
from selfpos.tasks.types.classification import Classification


@register
class Clustering(Classification):
    name = "clustering"
    summary = "texts with the name of their group"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("text", "sentences", "sentence", "title", "content", "abstract", "headline"),
        "label": ("label", "labels", "label_text", "cluster", "topic", "category", "categories", "class"),
    }
    measure = "v_measure"
    mteb_type = "Clustering"
