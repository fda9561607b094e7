"""Summarization: a text and what it comes to, each to be found by the other.

Record: `text`, `summary`.
Batch and loss: those of bitext. A summary says the same as its text in another form, as a translation does in another language, and MTEB
    compares a summary with others by plain cosine, in which no side is the query.
Validation: nDCG@10 of finding the summary of a text. MTEB's own measure, the correlation of cosine with people's grades of summaries, wants
    graded pairs; who has such can train on them as sts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.tasks.registry import register
from selfpos.tasks.task import TaskType
from selfpos.tasks.types.bitext import Bitext

if TYPE_CHECKING:
    from datasets import Dataset


@register
class Summarization(Bitext):
    name = "summarization"
    summary = "a text and its summary"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("text", "article", "document", "dialogue", "report", "source", "body"),
        "summary": ("summary", "highlights", "simplified", "abstract", "headline", "target", "title"),
    }
    text_columns = ("text", "summary")
    measure = "cosine_spearman"
    mteb_type = "Summarization"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        return TaskType.canonical(self, dataset, columns)
