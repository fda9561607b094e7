"""Retrieval, instruction retrieval and reranking: a question, and texts that answer it or do not.

Batch: records no two of which share a text, so that no positive is another's negative. Loss: InfoNCE, −log(
exp(q·p/τ) / Σ exp(q·d/τ) ), d over all positives and hard negatives of the batch (van den Oord et al. 2018,
arXiv 1807.03748; sentence-transformers' MultipleNegativesRankingLoss at scale 1/τ). Validation: nDCG@10.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.tasks import forms
from selfpos.tasks.task import TaskType, register

if TYPE_CHECKING:
    from datasets import Dataset

NUMBERED = re.compile(r"^neg(?:ative)?_?(\d+)$")
#: columns with one candidate a record, for reranking
CANDIDATES = ("answer", "passage", "sentence", "document", "candidate")


@register
class Retrieval(TaskType):
    """Record: `anchor`, `positive`, and hard negatives where there are any: `negative`, `negative_2`, … one
    column each, or one column of lists.

    Where a `label` says which pairs are right (1) and which are not (0), as in WikiQA and QNLI, the right
    ones are taken. From a list of positives each gives a record; from a list of negatives one is drawn for
    each. An inference set (premise, hypothesis, label) is taken too: the premise, something it entails,
    something that contradicts it.
    """

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
        numbered = [column for column in dataset.column_names if NUMBERED.match(column)]
        numbered.sort(key=lambda name: (len(name), name))
        for number, column in enumerate(numbered, start=1 + ("negative" in result.column_names)):
            name = "negative" if number == 1 else f"negative_{number}"
            result = result.add_column(name, dataset[column][:])
            self._check(result, name, column)
        return result

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        from datasets import Dataset as Records

        dataset = self.canonical(dataset)
        lists = {name for name in self.listed & {*dataset.column_names} if forms.is_list(dataset, name)}
        if not lists:
            return dataset
        draw = random.Random(seed)
        kept: dict[str, list[str]] = {column: [] for column in dataset.column_names}
        for record in dataset:
            if "negative" in lists and not record["negative"]:
                continue
            for positive in record["positive"] if "positive" in lists else [record["positive"]]:
                chosen = record | {"positive": positive}
                if "negative" in lists:
                    chosen["negative"] = draw.choice(record["negative"])
                for column, values in kept.items():
                    values.append(chosen[column])
        return self.canonical(Records.from_dict(kept))


def _right_pairs(dataset: Dataset) -> Dataset:
    """The records labelled 1 where all are labelled 1 or 0; any other label is about something else."""
    labels = [str(label) for label in dataset["label"]]
    if set(labels) != {"0", "1"}:
        return dataset
    return dataset.select([row for row, label in enumerate(labels) if label == "1"])


@register
class InstructionRetrieval(Retrieval):
    """Record: `query`, `instruction`, `positive`, and hard negatives as in retrieval: best texts that answer
    the question but not the instruction.

    The anchor is the question, a space and its instruction, as MTEB joins them. A record with an empty
    instruction is a plain question. Data without the column has one instruction for all, the task's
    `prompts`, as in INSTRUCTOR (Su et al. 2022, arXiv 2212.09741) and E5-mistral. The same question under
    other instructions may share a batch: the answer of one is then a negative of the other. MTEB's measure is
    p-MRR, which needs every question under two instructions.
    """

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


@register
class Reranking(TaskType):
    """Record: `query`, `positive` and `negative`, each a list of texts, or one: texts that look like answers.

    Sets with one candidate a record and a label (1 or 0: whether it answers), as WikiQA on the Hub, are
    gathered by question. A record becomes triples until each of its positives and negatives is used; the
    order within a record is shuffled. Validation: mean average precision over each question's candidates, as
    MTEB measures.
    """

    name = "reranking"
    summary = "a question, texts that answer it, texts that do not"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "query": ("query", "anchor", "question"),
        "positive": ("positive", "pos", "positives"),
        "negative": ("negative", "neg", "negatives"),
    }
    listed = frozenset({"positive", "negative"})
    text_columns = Retrieval.text_columns
    loss_name = Retrieval.loss_name
    sampler = Retrieval.sampler
    own_candidates = True
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
        wrong, right = ([side[label] for side in both.values()] for label in (0, 1))
        return Records.from_dict({"query": list(both), "positive": right, "negative": wrong})

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        from datasets import Dataset as Records

        dataset = self.canonical(dataset)
        order = random.Random(seed)
        triples: list[tuple[str, str, str]] = []
        left_out = 0
        for record in dataset:
            sides = []
            for side in (record["positive"], record["negative"]):
                sides.append([side] if isinstance(side, str) else list(side))
                order.shuffle(sides[-1])
            pairs = forms.cycled(*sides)
            triples += [(record["query"], *pair) for pair in pairs]
            left_out += not pairs
        if left_out:
            log.info("reranking: %d of %d records lack a positive or a negative", left_out, len(dataset))
        if not triples:
            raise SelfposError(
                f"none of the {len(dataset)} records of the reranking set has both a positive and a negative"
            )
        return Records.from_list([dict(zip(self.text_columns, triple, strict=True)) for triple in triples])
