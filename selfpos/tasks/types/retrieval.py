"""Retrieval, instruction retrieval and reranking: a question, and texts that answer it or do not.

Batch: records no two of which share a text, so that no positive is another's negative. Loss: InfoNCE, −log(
exp(q·p/τ) / Σ exp(q·d/τ) ), d over all positives and hard negatives of the batch (van den Oord et al. 2018,
arXiv 1807.03748; sentence-transformers' MultipleNegativesRankingLoss at scale 1/τ). Validation: nDCG@10.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from selfpos.errors import SelfposError
from selfpos.tasks import forms, labels
from selfpos.tasks.task import TaskType, register

if TYPE_CHECKING:
    from datasets import Dataset

NUMBERED = re.compile(r"^(?:hard_)?neg(?:ative)?s?_?(\d+)$")
#: columns with one candidate a record, for reranking
CANDIDATES = ("answer", "passage", "sentence", "document", "candidate")
LABELS = (
    "label",
    "labels",
    "gold_label",
    *(f"is_{word}" for word in labels.SAME),
    "is_selected",
    *(word for word in labels.SAME if word in ("correct", "relevant", "match", "same", "similar")),
    *("relevance", "rel", "grade", "judgement", "judgment"),
)
"""Names of the column that says which pairs are right."""
INVERTED = tuple(f"is_{word}" for word in ("wrong", "incorrect", "irrelevant", "negative", "impossible"))
"""Names of a column that says which are wrong."""
SCORES = ("score", "rating", "gold", "target", "class", "y")
"""Names of a column that says which are right where it says yes or no of all; else it says something else."""
YES_OR_NO = {"1", "0", "true", "false", "yes", "no"}
OTHERWISE = "where it is about something else, leave it out (--column label= , or label: '' in a recipe)"


@register
class Retrieval(TaskType):
    """Record: `anchor`, `positive`, and hard negatives where there are any: `negative`, `negative_2`, … one
    column each, or one column of lists.

    Where a `label` says which pairs are right and which are not (`selfpos.tasks.labels`), as in WikiQA and
    QNLI, the right ones are taken. From a list of positives each gives a record; from a list of negatives one
    is drawn for each. A record without a negative, where others have some, gets one of another record. An
    inference set (premise, hypothesis, label) is taken too: the premise, something it entails, something that
    contradicts it.
    """

    name = "retrieval"
    summary = "a question and a text that answers it, with or without hard negatives"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "anchor": ("anchor", "query", "question", "title", "premise"),
        "positive": (
            "positive", "pos", "positives", "positive_passages", "positive_ctxs", "answer", "passage",
            "document",
            "context", "body", "sentence", "hypothesis",
        ),
        "negative": (
            "negative", "neg", "negatives", "hard_negative", "hard_negatives", "negative_passages",
            "hard_negative_ctxs", "negative_ctxs",
        ),
        "label": LABELS,
    }  # fmt: skip
    optional = frozenset({"negative", "label"})
    listed = frozenset({"positive", "negative"})
    may_be_blank = frozenset({"negative"})
    text_columns = ("anchor", "positive", "negative")
    loss_name = "info-nce"
    sampler = "no_duplicates"
    mteb_type = "Retrieval"
    asks = True

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and forms.is_nli(dataset):
            dataset = forms.triples(dataset)
        result = super().canonical(dataset, columns)
        first = 1 + ("negative" in result.column_names)
        chosen = columns or {}
        left = [name for name in dataset.column_names if name not in chosen.values()]
        numbered = _numbered(left) if chosen.get("negative") != "" else []
        for number, column in enumerate(numbered, start=first):
            name = "negative" if number == 1 else f"negative_{number}"
            result = result.add_column(name, dataset[column][:])
            self._check(result, name, column)
        if "label" in result.column_names:
            result = _right_pairs(result)
        elif chosen.get("label") != "":
            for column in self._judging(dataset.column_names):
                result = _judged_right(result, dataset, column)
        return _with_negatives_cleaned(result)

    def forms_of(self, present: Sequence[str]) -> list[str]:
        return [*forms.nli_columns(present), *_numbered(present), *self._judging(present)]

    @staticmethod
    def _judging(present: Sequence[str]) -> list[str]:
        """The column that may say which pairs are right where none of `LABELS` does."""
        judging = [name for name in (*INVERTED, *SCORES) if name in present]
        return [] if set(LABELS) & set(present) else judging[:1]

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        from datasets import Dataset as Records

        dataset = self.canonical(dataset)
        lists = {name for name in self.listed & {*dataset.column_names} if forms.is_list(dataset, name)}
        negatives = [name for name in dataset.column_names if name.startswith("negative")]
        if not lists and not any(None in dataset[name][:] for name in negatives):
            return dataset
        draw = random.Random(seed)
        kept: dict[str, list[str | None]] = {column: [] for column in dataset.column_names}
        for record in dataset:
            for positive in record["positive"] if "positive" in lists else [record["positive"]]:
                chosen = record | {"positive": positive}
                if "negative" in lists:
                    chosen["negative"] = draw.choice(record["negative"]) if record["negative"] else None
                for column, values in kept.items():
                    values.append(chosen[column])
        for name in negatives:
            kept[name] = _borrowed(kept[name], kept["anchor"], kept["positive"], draw)
        return self.canonical(Records.from_dict(kept))


def _numbered(names: Iterable[str]) -> list[str]:
    """The columns of numbered negatives, in the order of their numbers."""
    return sorted((name for name in names if NUMBERED.match(name)), key=lambda name: (len(name), name))


def _right_pairs(dataset: Dataset) -> Dataset:
    """The records with a label of right pairs, without the label."""
    try:
        answers = labels.right_or_wrong(labels.values_of(dataset, "label"), "label")
    except SelfposError as error:
        raise SelfposError(f"{error}; {OTHERWISE}") from None
    return _marked(dataset, answers, "label").remove_columns("label")


def _marked(dataset: Dataset, marks: Sequence[Any], column: str) -> Dataset:
    """The records for which `column` says 1 in `marks`."""
    right = [row for row, label in enumerate(marks) if label == 1]
    if not right:
        raise SelfposError(f"column '{column}' marks none of {len(marks)} pairs as right; {OTHERWISE}")
    return dataset.select(right)


def _judged_right(result: Dataset, dataset: Dataset, column: str) -> Dataset:
    """The records of `result` that `column` of `dataset` says to be right: those that are not wrong, or have
    a score of 1 or yes where all have that or 0 or no. Other scores say how alike the texts are, or how many
    people liked them.
    """
    values = labels.values_of(dataset, column)
    if len(result) != len(values):
        return result
    if column in INVERTED:
        wrong = labels.right_or_wrong(values, column)
        return _marked(result, [None if mark is None else 1 - mark for mark in wrong], column)
    words = [labels.word(value) for value in values]
    if not set(words) <= YES_OR_NO:
        return result
    return _marked(result, [labels.MEANING[label] for label in words], column)


def _with_negatives_cleaned(dataset: Dataset) -> Dataset:
    """The records with nothing for blank negatives; without columns in which no record has one."""
    for name in [name for name in dataset.column_names if name.startswith("negative")]:
        values = [None if isinstance(value, str) and not value.strip() else value for value in dataset[name]]
        if not any(values):
            dataset = dataset.remove_columns(name)
        elif values != dataset[name][:]:
            order = dataset.column_names
            dataset = dataset.remove_columns(name).add_column(name, values).select_columns(order)
    return dataset


def _borrowed(
    negatives: Sequence[str | None],
    anchors: Sequence[str | None],
    positives: Sequence[str | None],
    draw: random.Random,
) -> list[str | None]:
    """`negatives` with one of another record wherever a record has none: never its own anchor or positive."""
    pool = [text for text in negatives if text is not None]
    filled: list[str | None] = []
    for negative, *own_texts in zip(negatives, anchors, positives, strict=True):
        tries = 0
        while negative is None or (tries and negative in own_texts):
            negative, tries = draw.choice(pool), tries + 1
            if tries == 100:
                raise SelfposError(
                    f"the record with the positive {str(own_texts[1])[:60]!r} has no negative, and those of "
                    "other records are its own texts; give each record a negative, or none"
                )
        filled.append(negative)
    return filled


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
        "label": LABELS,
    }
    optional = frozenset({"instruction", "negative", "label"})
    may_be_blank = frozenset({"instruction", "negative"})
    mteb_type = "InstructionRetrieval"

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        sources = self.find_columns(dataset.column_names, columns)
        if "instruction" not in sources and forms.are_instructed(dataset[sources["query"]]):
            pairs = dataset[sources["query"]][:]
            dataset = dataset.remove_columns(sources["query"])
            for name, index in (("instruction", 0), ("query", 1)):
                dataset = dataset.add_column(name, [pair[index] for pair in pairs])
        return super().canonical(dataset, columns)

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        """The records of retrieval with the instruction in the anchor; such records are accepted, too."""
        if "instruction" in dataset.column_names:
            dataset = self.canonical(dataset)
            pairs = zip(dataset["query"], dataset["instruction"], strict=True)
            anchors = [f"{query} {instruction or ''}".strip() for query, instruction in pairs]
            texts = [column for column in dataset.column_names if column not in ("query", "instruction")]
            dataset = dataset.select_columns(texts).add_column("anchor", anchors)
            dataset = dataset.select_columns(["anchor", *texts])
        return Retrieval().prepare(dataset, seed)


@register
class Reranking(TaskType):
    """Record: `query`, `positive` and `negative`, each a list of texts, or one: texts that look like answers.

    Sets with one candidate a record and a label (1 or 0: whether it answers), as WikiQA on the Hub, are
    gathered by question. As in MTEB, a record without a positive or a negative is left out. A record becomes
    triples until each of its positives and negatives is used; the order within a record is shuffled.
    Validation: mean average precision over each question's candidates, as MTEB measures.
    """

    name = "reranking"
    summary = "a question, texts that answer it, texts that do not"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "query": ("query", "anchor", "question"),
        "positive": Retrieval.columns["positive"][:5],
        "negative": Retrieval.columns["negative"],
    }
    listed = frozenset({"positive", "negative"})
    may_be_blank = frozenset({"positive", "negative"})
    text_columns: ClassVar[tuple[str, ...]] = Retrieval.text_columns
    loss_name = Retrieval.loss_name
    sampler = Retrieval.sampler
    own_candidates = True
    mteb_type = "Reranking"
    asks = True

    def canonical(self, dataset: Dataset, columns: Mapping[str, str] | None = None) -> Dataset:
        if not columns and (judged := self.forms_of(dataset.column_names)):
            dataset = _by_question(dataset, *judged)
        records = super().canonical(dataset, columns)
        sides = zip(records["positive"], records["negative"], strict=True)
        complete = [row for row, pair in enumerate(sides) if not any(map(_lacks_text, pair))]
        if not complete:
            raise SelfposError(
                f"none of the {len(records)} records of the reranking set has both a positive and a negative"
            )
        return records.select(complete) if len(complete) < len(records) else records

    def forms_of(self, present: Sequence[str]) -> list[str]:
        """Question, candidate and label of a set with one candidate a record."""
        if any(name in present for name in self.columns["negative"]):
            return []
        columns_of_form = [
            next((name for name in names if name in present), None)
            for names in (self.columns["query"], CANDIDATES, LABELS)
        ]
        return [] if None in columns_of_form else [name for name in columns_of_form if name]

    def prepare(self, dataset: Dataset, seed: int) -> Dataset:
        from datasets import Dataset as Records

        dataset = self.canonical(dataset)
        order = random.Random(seed)
        triples: list[tuple[str, str, str]] = []
        for record in dataset:
            sides = []
            for side in (record["positive"], record["negative"]):
                sides.append([side] if isinstance(side, str) else list(side))
                order.shuffle(sides[-1])
            triples += [(record["query"], *pair) for pair in forms.cycled(*sides)]
        return Records.from_list([dict(zip(self.text_columns, triple, strict=True)) for triple in triples])


def _lacks_text(side: str | list[str] | None) -> bool:
    return not side or (isinstance(side, str) and not side.strip())


def gathered(candidates: Iterable[tuple[str, Any, bool]]) -> dict[str, tuple[list[Any], list[Any]]]:
    """Question → its wrong and its right candidates, from (question, candidate, whether it is right)."""
    sides: dict[str, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    for question, candidate, right in candidates:
        sides[question][right].append(candidate)
    return sides


def _by_question(dataset: Dataset, question: str, candidate: str, label: str) -> Dataset:
    """Candidates gathered by question; without questions whose candidates are all right or all wrong."""
    from datasets import Dataset as Records

    dataset = forms.labelled(dataset, label)
    sides = gathered(zip(dataset[question], dataset[candidate], dataset[label], strict=True))
    answerable = {query: side for query, side in sides.items() if all(side)}
    if not answerable:
        raise SelfposError(f"none of {len(sides)} questions has both a right and a wrong candidate")
    wrong, right = ([side[number] for side in answerable.values()] for number in (0, 1))
    return Records.from_dict({"query": list(answerable), "positive": right, "negative": wrong})
