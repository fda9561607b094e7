"""Training records out of the embedded corpus, one function per task type, each with that type's canonical
columns.

What each task asks: retrieval - which docstring continues this summary; classification and clustering -
which subpackage a summary is from; pair classification - does A name B in its See Also section; sts - how
near two functions are, in four grades; reranking - which of several bodies of one subpackage is that of the
summary; summarization - which summary heads this docstring. Retrieval has two more views: names - which
summary is that of the function of this name; see-also - which docstring belongs to a linked function.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from selfpos.data.corpus_extraction import Entry
from selfpos.errors import SelfposError, unknown

if TYPE_CHECKING:
    import datasets

# A subpackage with fewer entries in the split is no class of its own.
MIN_PER_LABEL = 15
NEGATIVES_PER_QUERY = 4
# Grades of the sts task.
SAME, LINKED, NEIGHBOUR, UNRELATED = 3.0, 2.0, 1.0, 0.0


def training_records(
    entries: list[Entry], task: str, view: str | None = None, *, seed: int
) -> datasets.Dataset:
    """Records for `task` out of `entries`, drawn with `seed`; of another view of the entries than the first.

    Raises SelfposError for a task that the corpus cannot supply, or when none come out.
    """
    import datasets

    if task not in RECORDS:
        raise unknown("task type that the embedded corpus can supply", task, RECORDS)
    if view is not None and (task, view) not in VIEWS:
        of_task = [name for type_name, name in VIEWS if type_name == task]
        raise unknown(f"view of the embedded corpus for task type {task}", view, of_task)
    make = RECORDS[task] if view is None else VIEWS[task, view]
    records = make(entries, random.Random(seed))
    if not records:
        raise SelfposError(
            f"{len(entries)} entries of the embedded corpus give no {task} records; its splits are train, "
            "validation and test"
        )
    return datasets.Dataset.from_list(records)


def retrieval(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """anchor: a summary; positive: the rest of its docstring."""
    return [{"anchor": entry.summary, "positive": entry.body} for entry in entries]


def names(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """anchor: a function's own name in words (`read_csv` is "read csv"); positive: its summary."""
    return [{"anchor": name_in_words(entry.name), "positive": entry.summary} for entry in entries]


def see_also(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """anchor: a summary; positive: the body of a function that is linked to its own by See Also."""
    return [{"anchor": first.summary, "positive": second.body} for first, second in links(entries)]


def name_in_words(name: str) -> str:
    """The last part of a qualified name, at underscores and capitals taken apart."""
    last = name.rsplit(".", 1)[-1].replace("_", " ")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", last).strip()


def summarization(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """text: a docstring without its first sentence; summary: that sentence."""
    return [{"text": entry.body, "summary": entry.summary} for entry in entries]


def labelled(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """text: a summary; label: its subpackage, of those with at least MIN_PER_LABEL entries."""
    counts = Counter(entry.subpackage for entry in entries)
    return [
        {"text": entry.summary, "label": entry.subpackage}
        for entry in entries
        if counts[entry.subpackage] >= MIN_PER_LABEL
    ]


def pair_classification(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """Two summaries; label 1 when one names the other in its See Also, else 0, for as many pairs of one
    subpackage that do not.
    """
    linked = links(entries)
    neighbours, related = by_subpackage(entries), _related(linked)
    records = [
        {"sentence1": first.summary, "sentence2": second.summary, "label": 1} for first, second in linked
    ]
    for first, _ in linked:
        other = _other_than({first.name, *related[first.name]}, neighbours[first.subpackage], rng)
        if other is not None:
            records.append({"sentence1": first.summary, "sentence2": other.summary, "label": 0})
    rng.shuffle(records)
    return records


def sts(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """A summary, a body, and how near their functions are: 3 the same, 2 linked by See Also, 1 of one
    subpackage, 0 of different packages.

    As many of each grade as there are links. The second text is a body in every grade, so that its form does
    not reveal the grade.
    """
    linked = links(entries)
    neighbours, related = by_subpackage(entries), _related(linked)
    packages = {first.package for first, _ in linked}
    strangers = {package: [entry for entry in entries if entry.package != package] for package in packages}
    records = []
    for first, second in linked:
        near = _other_than({first.name, *related[first.name]}, neighbours[first.subpackage], rng)
        far = _other_than(related[first.name], strangers[first.package], rng)
        for other, score in ((first, SAME), (second, LINKED), (near, NEIGHBOUR), (far, UNRELATED)):
            if other is not None:
                records.append({"sentence1": first.summary, "sentence2": other.body, "score": score})
    rng.shuffle(records)
    return records


def reranking(entries: list[Entry], rng: random.Random) -> list[dict[str, Any]]:
    """query: a summary; positive: its body; negative: bodies of the same subpackage."""
    neighbours = by_subpackage(entries)
    records = []
    for entry in entries:
        others = [other.body for other in neighbours[entry.subpackage] if other is not entry]
        if len(others) >= NEGATIVES_PER_QUERY:
            records.append(
                {
                    "query": entry.summary,
                    "positive": [entry.body],
                    "negative": rng.sample(others, NEGATIVES_PER_QUERY),
                }
            )
    return records


def links(entries: Iterable[Entry]) -> list[tuple[Entry, Entry]]:
    """Pairs of `entries` of which one names the other in its See Also, each pair once.

    Both are in `entries`: no function is in two splits.
    """
    entry_of = {entry.name: entry for entry in entries}
    pairs: dict[frozenset[str], tuple[Entry, Entry]] = {}
    for entry in entry_of.values():
        for target in entry.see_also:
            if target in entry_of:
                pairs.setdefault(frozenset((entry.name, target)), (entry, entry_of[target]))
    return list(pairs.values())


def by_subpackage(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries of each subpackage, in order."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.subpackage].append(entry)
    return groups


def _related(linked: list[tuple[Entry, Entry]]) -> dict[str, set[str]]:
    related: dict[str, set[str]] = defaultdict(set)
    for first, second in linked:
        related[first.name].add(second.name)
        related[second.name].add(first.name)
    return related


def _other_than(excluded: set[str], entries: list[Entry], rng: random.Random) -> Entry | None:
    """A random entry that is not excluded by name, or None when 20 draws find none."""
    drawn = (rng.choice(entries) for _ in range(20 if entries else 0))
    return next((entry for entry in drawn if entry.name not in excluded), None)


Maker = Callable[[list[Entry], random.Random], list[dict[str, Any]]]
RECORDS: dict[str, Maker] = {
    "retrieval": retrieval,
    "classification": labelled,
    "clustering": labelled,
    "pair-classification": pair_classification,
    "sts": sts,
    "reranking": reranking,
    "summarization": summarization,
}
VIEWS: dict[tuple[str, str], Maker] = {("retrieval", "names"): names, ("retrieval", "see-also"): see_also}
"""Task type, name of the view → other records for it, asked for as `corpus:NAME`."""
