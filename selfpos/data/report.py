"""What a task's data is like: how much of it there is and was dropped, how long its texts are, what occurs
twice, how often each label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.storage.loading import strangers_files
from selfpos.vectors.tokenizers import open_tokenizer

if TYPE_CHECKING:
    from selfpos.data.sources import LoadedSource
    from selfpos.tasks import TaskType

QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "longest": 1.0}
MEASURED = 2000
"""Records whose texts are tokenised, evenly spread over the data."""
SHOWN = 10
"""Labels that are counted by name."""


def describe_data(loaded: LoadedSource, kind: TaskType, base: Path) -> dict[str, Any]:
    """The report on `loaded`, as plain data: records found, kept and dropped by reason; for each text column
    the number of texts, of different ones among them, and quantiles of their length in tokens of `base`; the
    number of labels and the commonest, or quantiles of scores."""
    dataset = loaded.dataset
    report: dict[str, Any] = {"found": loaded.found, "kept": len(dataset), "dropped": dict(loaded.dropped)}
    if loaded.revisions:
        report["revisions"] = dict(loaded.revisions)
    report["repeated records"] = len(dataset) - len({hash(str(record)) for record in dataset})
    count = _token_counter(base)
    spread = range(0, len(dataset), max(1, len(dataset) // MEASURED))
    for column in dataset.column_names:
        if column in ("label", "score"):
            values = dataset[column]
            report[column] = _values(
                [text for value in values for text in (value if isinstance(value, list) else [value])]
            )
            continue
        texts = list(_flat(dataset[column]))
        if not texts:  # the candidates of all questions may be on one side
            continue
        with strangers_files(f"the tokenizer of {base} fails on a text of {column}"):
            lengths = count(list(_flat(dataset.select(spread)[column])) or texts)
        report.setdefault("texts", {})[column] = {
            "count": len(texts),
            "different": len(set(texts)),
            "tokens": {
                name: int(np.quantile(lengths, share, method="higher")) for name, share in QUANTILES.items()
            },
        }
    return report


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report in lines for a person to read."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items())
    lines = [
        f"  {report['kept']} of {report['found']} records" + (f"; dropped: {dropped}" if dropped else "")
    ]
    if repeated := report["repeated records"]:
        lines[0] += f"; {repeated} occur before (kept)"
    lines += [f"  {name} at revision {revision}" for name, revision in report.get("revisions", {}).items()]
    for column, facts in report.get("texts", {}).items():
        tokens = ", ".join(f"{name} {length}" for name, length in facts["tokens"].items())
        lines.append(f"  {column}: {facts['count']} texts, {facts['different']} different; tokens: {tokens}")
    for column in ("label", "score"):
        if facts := report.get(column):
            counts = ", ".join(f"{label} {count}" for label, count in facts["commonest"].items())
            lines.append(
                f"  {column}: {facts['different']} values, the commonest {counts}; the rarest "
                f"{facts['rarest']} times"
            )
    return lines


def _values(values: list[Any]) -> dict[str, Any]:
    counts = Counter(map(str, values))
    return {
        "different": len(counts),
        "commonest": dict(counts.most_common(SHOWN)),
        "rarest": min(counts.values()),
    }


def _flat(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        else:
            yield from value


def _token_counter(base: Path) -> Callable[[list[str]], list[int]]:
    """Counts the tokens of texts, special ones included, without any limit."""
    file = next(iter(sorted(base.rglob("tokenizer.json"))), None)
    if file is None:
        from transformers import AutoTokenizer

        with strangers_files(f"the tokenizer of {base} does not load"):
            slow = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
        return lambda texts: [len(slow(text, truncation=False)["input_ids"]) for text in texts]
    fast = open_tokenizer(file)
    return lambda texts: [len(encoding.ids) for encoding in fast.encode_batch(texts)]
