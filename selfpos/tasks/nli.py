"""Natural language inference sets (premise, hypothesis, label), which several task types can learn from."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from selfpos.console import log
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from datasets import Dataset

#: the usual order of integer labels in SNLI, MultiNLI and XNLI on the Hub; -1 there means that annotators did not agree
NAMES = ("entailment", "neutral", "contradiction")


def is_nli(dataset: Dataset) -> bool:
    """Whether the records are premise, hypothesis and label."""
    return {"premise", "hypothesis", "label"} <= set(dataset.column_names)


def ones(dataset: Dataset) -> Dataset:
    """The records with label 1 where the pair belongs together: sets of two labels with entailment first, as QNLI and RTE of GLUE, are turned."""
    if tuple(getattr(dataset.features.get("label"), "names", None) or ()) != ("entailment", "not_entailment"):
        return dataset
    turned = [None if label is None or label < 0 else 1 - label for label in dataset["label"]]
    return dataset.remove_columns("label").add_column("label", turned)


def _judged(dataset: Dataset) -> list[tuple[str, str, str]]:
    """(premise, hypothesis, name of the label) of the records on which annotators agreed."""
    feature = dataset.features["label"]
    names = tuple(getattr(feature, "names", None) or NAMES)
    records = []
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
        records.append((premise, hypothesis, name))
    return records


def graded_pairs(dataset: Dataset, grades: dict[str, float]) -> dict[str, list]:
    """sentence1, sentence2 and a number for each record whose label is in `grades`."""
    kept = [
        (premise, hypothesis, grades[name])
        for premise, hypothesis, name in _judged(dataset)
        if name in grades
    ]
    log.info("inference set: %d of %d records graded", len(kept), len(dataset))
    return {
        name: [record[place] for record in kept]
        for place, name in enumerate(("sentence1", "sentence2", "grade"))
    }


def triples(dataset: Dataset) -> dict[str, list[str]]:
    """anchor, positive, negative: a premise with something it entails and something that contradicts it.

    A premise with several of either is used until each of them has served; one that lacks either is left out.
    """
    sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: {name: [] for name in NAMES})
    for premise, hypothesis, name in _judged(dataset):
        sides[premise][name].append(hypothesis)
    found: dict[str, list[str]] = {"anchor": [], "positive": [], "negative": []}
    for premise, side in sides.items():
        pairs = cycled(side["entailment"], side["contradiction"])
        found["anchor"] += [premise] * len(pairs)
        found["positive"] += [positive for positive, _ in pairs]
        found["negative"] += [negative for _, negative in pairs]
    if not found["anchor"]:
        raise SelfposError(
            "no premise of the inference set has both an entailment and a contradiction, so it gives no triple"
        )
    log.info(
        "inference set: %d triples from %d records with %d premises",
        len(found["anchor"]),
        len(dataset),
        len(sides),
    )
    return found


def cycled(positives: list[str], negatives: list[str]) -> list[tuple[str, str]]:
    """Pair each positive and each negative at least once, the shorter list going round; empty when either is."""
    if not positives or not negatives:
        return []
    count = max(len(positives), len(negatives))
    return [(positives[i % len(positives)], negatives[i % len(negatives)]) for i in range(count)]
