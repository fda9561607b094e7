"""Forms of data sets that task types bring to their columns: lists, inference sets, labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from selfpos.console import log
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks.task import TaskType

#: the usual order of integer labels in SNLI, MultiNLI and XNLI on the Hub; -1 means that annotators disagreed
NAMES = ("entailment", "neutral", "contradiction")


def is_list(dataset: Dataset, column: str) -> bool:
    """Whether the records hold lists in `column`."""
    return getattr(dataset.features[column], "feature", None) is not None


def unnested(dataset: Dataset, task_type: TaskType, columns: Mapping[str, str] | None) -> Dataset:
    """One record for each element of the lists, where all columns that `task_type` takes hold lists."""
    from datasets import Dataset as Records

    taken = list(task_type.find_columns(dataset, columns).values())
    if not taken or not all(is_list(dataset, column) for column in taken):
        return dataset
    flat: dict[str, list] = {column: [] for column in taken}
    for number, record in enumerate(dataset.select_columns(taken), start=1):
        counts = {column: len(values or ()) for column, values in record.items()}
        if len(set(counts.values())) > 1:
            lengths = ", ".join(f"{count} {column}" for column, count in counts.items())
            raise SelfposError(f"record {number} holds lists of different length: {lengths}")
        for column, values in record.items():
            flat[column] += values or ()
    return Records.from_dict(flat)


def is_nli(dataset: Dataset) -> bool:
    """Whether it is a natural language inference set: premise, hypothesis and label."""
    return {"premise", "hypothesis", "label"} <= set(dataset.column_names)


def to_binary_labels(dataset: Dataset) -> Dataset:
    """The records with labels turned around in sets with entailment first, as QNLI and RTE of GLUE."""
    names = tuple(getattr(dataset.features.get("label"), "names", None) or ())
    if names != ("entailment", "not_entailment"):
        return dataset
    turned = [None if label is None or label < 0 else 1 - label for label in dataset["label"]]
    return dataset.remove_columns("label").add_column("label", turned)


def _labelled_pairs(dataset: Dataset) -> list[tuple[str, str, str]]:
    """(premise, hypothesis, name of the label) of the records on which annotators agreed."""
    names = tuple(getattr(dataset.features["label"], "names", None) or NAMES)
    pairs = []
    for premise, hypothesis, label in zip(
        dataset["premise"], dataset["hypothesis"], dataset["label"], strict=True
    ):
        if label in (-1, "-1", "-", None):
            continue
        name = names[label] if isinstance(label, int) and 0 <= label < len(names) else str(label)
        if name not in NAMES:
            raise SelfposError(
                f"label {label!r} is none of an inference set's: expected 0, 1, 2 or {', '.join(NAMES)}"
            )
        pairs.append((premise, hypothesis, name))
    return pairs


def graded_pairs(dataset: Dataset, grades: Mapping[str, float], column: str) -> Dataset:
    """sentence1, sentence2 and the grade, as `column`, of an inference set's records with a graded label."""
    from datasets import Dataset as Records

    kept = [(*pair, grades[name]) for *pair, name in _labelled_pairs(dataset) if name in grades]
    log.info("inference set: %d of %d records graded", len(kept), len(dataset))
    names = ("sentence1", "sentence2", column)
    return Records.from_dict({name: [record[index] for record in kept] for index, name in enumerate(names)})


def triples(dataset: Dataset) -> Dataset:
    """anchor, positive, negative: a premise with something it entails and something that contradicts it.

    A premise with several of either is repeated until each is used; one that lacks either is left out.
    """
    from datasets import Dataset as Records

    sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: {name: [] for name in NAMES})
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
