"""Forms of data sets that task types bring to their columns: lists, inference sets, labels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.tasks import labels

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks.task import TaskType

WRITTEN_LIST = re.compile(r"\s*(\[\s*\]|\[\s*['\"\d{].*\]|\{\s*['\"].*\})\s*$", re.DOTALL)
"""As Python, numpy or JSON write a list, or an object."""


def is_list(dataset: Dataset, column: str) -> bool:
    """Whether the records hold lists in `column`."""
    return getattr(dataset.features[column], "feature", None) is not None


def are_written_lists(values: Sequence[Any]) -> bool:
    """Whether all texts are lists or objects written as text, which is what a CSV has of them."""
    texts = [value for value in values if value is not None]
    return bool(texts) and all(isinstance(text, str) and WRITTEN_LIST.match(text) for text in texts)


def unnested(dataset: Dataset, task_type: TaskType, columns: Mapping[str, str] | None) -> Dataset:
    """One record for each element of the lists, where all columns that `task_type` takes hold lists."""
    from datasets import Dataset as Records
    from datasets import Features

    columns_taken = list(task_type.find_columns(dataset.column_names, columns).values())
    if not columns_taken or not all(is_list(dataset, column) for column in columns_taken):
        return dataset
    flat: dict[str, list] = {column: [] for column in columns_taken}
    for number, record in enumerate(dataset.select_columns(columns_taken), start=1):
        counts = {column: len(values or ()) for column, values in record.items()}
        if len(set(counts.values())) > 1:
            lengths = ", ".join(f"{count} {column}" for column, count in counts.items())
            raise SelfposError(f"record {number} holds lists of different length: {lengths}")
        for column, values in record.items():
            flat[column] += values or ()
    # the features keep the names of labels
    return Records.from_dict(
        flat, Features({column: dataset.features[column].feature for column in columns_taken})
    )


def plain_texts(dataset: Dataset, columns: Sequence[str], *, asks: bool, blanks: bool = False) -> Dataset:
    """The records with plain texts, or lists of them, in `columns`, the question's first.

    Taken apart are passages, `{"title": …, "text": …}` as in DPR and MIRACL, and, where the first text
    `asks`, pairs `[instruction, text]` as in MEDI and GritLM, which become one text. Lists lose what is blank
    in them, but with `blanks`.
    """
    nested = [name for name in columns if is_list(dataset, name) or isinstance(dataset.features[name], dict)]
    instructed = asks and columns[0] in nested and are_instructed(dataset[columns[0]])
    for column in nested:
        values = [_plain(value, instructed, blanks) for value in dataset[column]]
        index = dataset.column_names.index(column)
        order = [*dataset.column_names[:index], column, *dataset.column_names[index + 1 :]]
        dataset = dataset.remove_columns(column).add_column(column, values).select_columns(order)
    return dataset


def are_instructed(questions: Iterable[Any]) -> bool:
    """Whether the questions are pairs `[instruction, text]`."""
    return all(isinstance(value, list) and len(value) == 2 for value in questions)


def _plain(value: Any, instructed: bool, blanks: bool) -> Any:
    if isinstance(value, dict):
        return passage_text(value)
    if not isinstance(value, list):
        return value
    if instructed and len(value) == 2 and all(isinstance(part, str) for part in value):
        return " ".join(part.strip() for part in value if part.strip())
    plain = (_plain(part, instructed, blanks) for part in value)
    return [part for part in plain if blanks or not isinstance(part, str | None) or (part and part.strip())]


PASSAGE = ("text", "contents", "content", "passage", "body")
"""Names of the text in a passage."""


def passage_text(passage: Mapping[str, Any]) -> str:
    """Title and text as one, as MTEB joins them. Raises SelfposError where no field is a text."""
    texts = [passage[name] for name in PASSAGE if name in passage]
    if not any(isinstance(text, str | None) for text in texts or [passage.get("title", 0)]):
        raise SelfposError(
            f"a passage has the fields {', '.join(passage)[:200]}, of which none holds its text; expected a "
            f"plain text under {PASSAGE[0]} (or {', '.join(PASSAGE[1:])})"
        )
    text = next((passage[name] for name in PASSAGE if isinstance(passage.get(name), str)), "")
    return f"{passage.get('title') or ''} {text}".strip()


PREMISES = (("premise", "hypothesis"), ("sentence1", "sentence2"))
GOLD = ("label", "gold_label")


def nli_columns(names: Collection[str]) -> list[str]:
    """Premise, hypothesis and label among the columns `names`; empty where there are no such."""
    for pair in PREMISES:
        gold = [name for name in GOLD if name in names]
        if gold and set(pair) <= set(names):
            # SNLI's own files have beside `gold_label` a `label` of no meaning to us
            return [*pair, "gold_label" if "gold_label" in gold else gold[0]]
    return []


def is_nli(dataset: Dataset, column: str = "label") -> bool:
    """Whether it is a natural language inference set: two texts, and labels of an inference set.

    Raises SelfposError where it may be one, or not: the labels taken as the task type's `column` would tell.
    """
    columns = nli_columns(dataset.column_names)
    if not columns:
        return False
    values = labels.values_of(dataset, columns[2])
    words = {labels.word(value) for value in values} - {*labels.UNLABELLED}
    if columns[0] == "premise" and words and words <= {"0", "1", "2"}:
        if "2" not in words:
            raise SelfposError(
                f"column '{columns[2]}' holds {' and '.join(sorted(words))} beside premises, which is right "
                "and wrong to some, entailment first to others; write words (entailment, not_entailment), or "
                f"say that 1 is right, by --column {column}={columns[2]}, in YAML 'columns: {{{column}: "
                f"{columns[2]}}}'"
            )
        return True
    return labels.is_inference(values)


def _labelled_pairs(dataset: Dataset) -> list[tuple[str, str, str]]:
    """(premise, hypothesis, name of the label) of the records on which annotators agreed."""
    first, second, gold = nli_columns(dataset.column_names)
    names = labels.inference(labels.values_of(dataset, gold), gold)
    triples = zip(dataset[first], dataset[second], names, strict=True)
    return [(premise, hypothesis, name) for premise, hypothesis, name in triples if name is not None]


def labelled(dataset: Dataset, column: str) -> Dataset:
    """The records with 1 and 0 for the labels of `column`, without those that have no label."""
    answers = labels.right_or_wrong(labels.values_of(dataset, column), column)
    rows = [row for row, label in enumerate(answers) if label is not None]
    if not rows:
        raise SelfposError(f"column '{column}' has no label on any of {len(answers)} records")
    kept = dataset.select(rows).remove_columns(column).add_column(column, [answers[row] for row in rows])
    return kept.select_columns(dataset.column_names)


def graded_pairs(dataset: Dataset, grades: Mapping[str, float], column: str) -> Dataset:
    """sentence1, sentence2 and the grade, as `column`, of an inference set's records with a graded label."""
    from datasets import Dataset as Records

    pairs = _labelled_pairs(dataset)
    if "neutral" not in grades and not any(name == "contradiction" for *_, name in pairs):
        grades = {**grades, "neutral": grades["contradiction"]}  # a two-way set, as SciTail
    kept = [(*pair, grades[name]) for *pair, name in pairs if name in grades]
    log.info("inference set: %d of %d records graded", len(kept), len(dataset))
    names = ("sentence1", "sentence2", column)
    return Records.from_dict({name: [record[index] for record in kept] for index, name in enumerate(names)})


def triples(dataset: Dataset) -> Dataset:
    """anchor, positive, negative: a premise with something it entails and something that contradicts it.

    A premise with several of either is repeated until each is used; one that lacks either is left out.
    """
    from datasets import Dataset as Records

    sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: {name: [] for name in labels.ORDER})
    for premise, hypothesis, name in _labelled_pairs(dataset):
        sides[premise][name].append(hypothesis)
    records = [
        {"anchor": premise, "positive": positive, "negative": negative}
        for premise, side in sides.items()
        for positive, negative in cycled(side["entailment"], side["contradiction"])
    ]
    if not records:
        raise SelfposError(
            "no premise of the inference set has both an entailment and a contradiction, "
            "so it gives no triple"
        )
    log.info(
        "inference set: %d triples from %d records with %d premises", len(records), len(dataset), len(sides)
    )
    return Records.from_list(records)


def cycled(positives: list[str], negatives: list[str]) -> list[tuple[str, str]]:
    """Pair each positive and each negative at least once, cycling the shorter list; empty if one is."""
    if not positives or not negatives:
        return []
    count = max(len(positives), len(negatives))
    return [(positives[i % len(positives)], negatives[i % len(negatives)]) for i in range(count)]
