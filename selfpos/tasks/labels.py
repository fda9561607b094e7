"""What the labels of pairs say: a table of the words that are understood; all others are refused by name.

Where a data set names its labels (ClassLabel), the names count, not the numbers behind them: GLUE's QNLI and
RTE have entailment first. Words are compared in lower case, with `_` for spaces and hyphens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from datasets import Dataset

SAME = (
    "right", "correct", "positive", "relevant", "match", "same", "similar", "equivalent", "duplicate",
    "paraphrase", "entailment", "entailed", "entails", "answer",
)  # fmt: skip
RIGHT = ("1", "true", "yes", "y", "t", *SAME, *(f"is_{word}" for word in SAME))
"""The pair belongs together: the second text answers, repeats or follows from the first."""
WRONG = (
    "0", "false", "no", "n", "f", "wrong", "incorrect", "negative", "irrelevant", "mismatch", "different",
    "dissimilar", "unrelated", "contradiction", "contradicts", "contradictory", "contradict",
    *(f"{no}_{word}" for word in SAME for no in ("not", "not_a", "not_an", "non", "no", "is_not")),
)  # fmt: skip
"""It does not."""
UNDECIDED = ("neutral", "undetermined")
"""Of an inference set: neither."""
UNLABELLED = ("", "-", "-1", "n/a", "none")
"""No label: annotators disagreed, or the test set hides it."""
ORDER = ("entailment", "neutral", "contradiction")
"""What 0, 1 and 2 mean in an inference set without names: the order of SNLI, MultiNLI and XNLI on the Hub."""

MEANING: dict[str, int | None] = {
    **dict.fromkeys((*UNDECIDED, *UNLABELLED), None),
    **dict.fromkeys(WRONG, 0),
    **dict.fromkeys(RIGHT, 1),
}


def values_of(dataset: Dataset, column: str) -> list[Any]:
    """The values of a column, the numbers of named labels replaced by their names, negative ones by None."""
    names = getattr(dataset.features[column], "names", None)
    values: list[Any] = dataset[column][:]
    if names is None:
        return values
    return [names[value] if value is not None and 0 <= value < len(names) else None for value in values]


def word(value: Any) -> str:
    """`value` as the table has it: 1.0 and "1.0" as "1", nothing and NaN as ""."""
    if value is None or value != value:
        return ""
    text = str(value).strip().lower()
    try:
        number = float(text)
    except ValueError:
        return text if text in UNLABELLED else "_".join(text.replace("-", " ").split())
    return str(int(number)) if number.is_integer() else text


def number(value: Any) -> float | None:
    """`value`, perhaps written as text, as a number; None for what is none, and NaN."""
    try:
        parsed = float(value)
    except (TypeError, ValueError):
        return None
    return None if parsed != parsed else parsed


def right_or_wrong(values: Sequence[Any], column: str) -> list[int | None]:
    """1 for pairs that belong together, 0 for others; None for pairs without a label and undecided ones.

    Raises SelfposError naming the values of `column` that are not in the table.
    """
    words = [word(value) for value in values]
    kinds = set(words)
    strange = sorted(kinds - MEANING.keys())
    if "-1" in kinds and "1" in kinds and "0" not in kinds:
        strange.append("-1 beside 1")  # wrong, or without a label? 0 would tell
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise SelfposError(
            f"column '{column}' holds labels of pairs, which are 1 and 0 (or true and false, yes and no, "
            "entailment and not_entailment, duplicate and not_duplicate, …; -1 beside 0 is no label), found "
            f"{', '.join(strange[:5])}{more}; write them as 1 and 0"
        )
    return [MEANING[label] for label in words]


def is_inference(values: Iterable[Any]) -> bool:
    """Whether the labels are words of an inference set, rather than those of right and wrong pairs."""
    return bool({_way(label) for label in {word(value) for value in values}} & {"neutral", "contradiction"})


def inference(values: Sequence[Any], column: str) -> list[str | None]:
    """Each label of an inference set as one of `ORDER`; None for pairs without a label.

    Numbers without names are taken in that order. Raises SelfposError naming a label that is none of them.
    """
    ways: list[str | None] = []
    for value in values:
        label = word(value)
        way = ORDER[int(label)] if label in ("0", "1", "2") else _way(label)
        if way is None and label not in UNLABELLED:
            raise SelfposError(
                f"column '{column}' holds the label {value!r}, which is none of an inference set's: expected "
                f"0, 1, 2 or {', '.join(ORDER)}"
            )
        ways.append(way)
    return ways


def _way(label: str) -> str | None:
    if label in ("entailment", "entails", "entailed"):
        return "entailment"
    if label in UNDECIDED:
        return "neutral"
    return "contradiction" if label.startswith("contradict") else None
