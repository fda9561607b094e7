"""Instruction retrieval: a question, an instruction that says what counts as an answer, and a text that
answers it.

Record: `query`, `instruction`, `positive`, and hard negatives as in retrieval: best texts that answer the
    question but not the instruction. The anchor is the question followed by its instruction, with a space
    between, as MTEB joins them. A record with an empty instruction is a plain question. Data without the
    column has one instruction for all, the task's `prompts` (`query: "Find the page that answers the
    question: "`), as in INSTRUCTOR (Su et al. 2022, arXiv 2212.09741) and E5-mistral.
Batch and loss: those of retrieval. Records with the same question under other instructions may share a batch;
    the answer of one is then a negative of the other, which teaches a model to follow the instruction. Where
    one text answers several of them, they never share a batch, since they share a text.
Validation: nDCG@10. MTEB's measure is p-MRR, which needs every question under two instructions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.tasks.task import register
from selfpos.tasks.types.retrieval import Retrieval

if TYPE_CHECKING:
    from datasets import Dataset


@register
class InstructionRetrieval(Retrieval):
    name = "instruction-retrieval"
    summary = "a question with an instruction, and a text that answers it"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "query": ("query", "only_query", "question", "anchor"),
        "instruction": ("instruction", "only_instruction", "prompt", "narrative"),
        "positive": Retrieval.columns["positive"],
        "negative": Retrieval.columns["negative"],
    }
    optional = frozenset({"instruction", "negative"})
    may_be_blank = frozenset({"instruction"})
    mteb_type = "InstructionRetrieval"

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """The records of retrieval with the instruction in the anchor; such records are accepted, too."""
        if "instruction" in dataset.column_names:
            dataset = self.canonical(dataset)
            pairs = zip(dataset["query"], dataset["instruction"], strict=True)
            anchors = [f"{query} {instruction}".strip() for query, instruction in pairs]
            texts = [column for column in dataset.column_names if column not in ("query", "instruction")]
            dataset = dataset.select_columns(texts).add_column("anchor", anchors)
            dataset = dataset.select_columns(["anchor", *texts])
        return Retrieval().prepare(dataset, seed)
