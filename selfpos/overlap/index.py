"""Overlap of training records with test data: which test items a record gives away, word for word or nearly.

A test item is what a task scores: a pair of texts (similarity, pair classification, bitext), a text (classification, clustering), a query (retrieval,
reranking). A record gives it away when each of the item's texts is among the record's own, whatever their order. Documents that a retrieval task
searches in are no items: that training knows them is the rule, and tells nothing of the queries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from selfpos.overlap.near import NearIndex, normalise

if TYPE_CHECKING:
    from datasets import Dataset

Item = tuple[str, ...]
"""The texts of one test item."""

PIECE = 1000  # records in memory at once


@dataclass(frozen=True)
class TaskOverlap:
    """What records share with one task: of its `items`, `exact` are given away word for word (after `normalise`) and `near` nearly so; `texts` of
    them are somewhere in the records, alone or not; `records` give an item away."""

    items: int
    exact: int
    near: int
    texts: int
    records: int


@dataclass(frozen=True)
class Overlap:
    """What a set of records shares with each task, and the `rows` that give an item away."""

    records: int
    rows: list[int]
    tasks: dict[str, TaskOverlap]

    def facts(self) -> dict[str, Any]:
        """The same as JSON takes it, without the rows."""
        return {
            "records": self.records,
            "overlapping": len(self.rows),
            "tasks": {task: asdict(found) for task, found in self.tasks.items()},
        }


class ItemIndex:
    """The items of several tasks, to be asked what records share with them. Memory goes with the test data, not with the records.

    `threshold`: Jaccard similarity from which two texts are nearly the same (see `selfpos.overlap.near`); None compares word for word only.
    """

    def __init__(self, tests: Mapping[str, Sequence[Item]], threshold: float | None = 0.8) -> None:
        self._ids: dict[str, int] = {}
        self.items: dict[str, Counter[tuple[int, ...]]] = {}
        self._with: dict[int, list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
        for task, items in tests.items():
            keys = [
                tuple(sorted(self._ids.setdefault(normalise(text), len(self._ids)) for text in item))
                for item in items
            ]
            self.items[task] = Counter(keys)
            for key in self.items[task]:
                for one in set(key):
                    self._with[one].append((task, key))
        self._near = NearIndex(list(self._ids), threshold) if threshold is not None else None

    def check(self, records: Dataset, columns: Sequence[str]) -> Overlap:
        """What `records` share with every task. `columns` hold texts or lists of texts."""
        found: dict[str, dict[tuple[int, ...], bool]] = {
            task: {} for task in self.items
        }  # item -> whether word for word
        rows: dict[str, list[int]] = {task: [] for task in self.items}
        met: set[int] = set()
        start = 0
        for piece in records.select_columns(list(columns)).iter(PIECE):
            texts = [
                [normalise(text) for value in values for text in _listed(value)]
                for values in zip(*piece.values(), strict=True)
            ]
            similar = self._similar({text for record in texts for text in record})
            for row, record in enumerate(texts, start=start):
                # of each text in the record that is in the index: itself word for word, and all it is near to
                hits = [(self._ids.get(text), similar[text]) for text in record if text in similar]
                met.update(same for same, _ in hits if same is not None)
                given: dict[str, bool] = {}
                for task, key in {place for _, near in hits for one in near for place in self._with[one]}:
                    exact = _gives(key, [set() if same is None else {same} for same, _ in hits])
                    if exact or _gives(key, [near for _, near in hits]):
                        found[task][key] = found[task].get(key, False) or exact
                        given[task] = True
                for task in given:
                    rows[task].append(row)
            start += len(texts)
        tasks = {}
        for task, items in self.items.items():
            exact_count = sum(items[key] for key, exact in found[task].items() if exact)
            near_count = sum(items[key] for key, exact in found[task].items() if not exact)
            shared = len({one for key in items for one in key} & met)
            tasks[task] = TaskOverlap(items.total(), exact_count, near_count, shared, len(rows[task]))
        return Overlap(len(records), sorted({row for own in rows.values() for row in own}), tasks)

    def _similar(self, texts: set[str]) -> dict[str, set[int]]:
        """For each of `texts` that is in the index or near to something there, the numbers of all that it is equal or near to."""
        similar = {text: {self._ids[text]} for text in texts if text in self._ids}
        if self._near is not None:
            asked = sorted(texts)
            for place, others in self._near.near(asked).items():
                similar.setdefault(asked[place], set()).update(others)
        return similar


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _gives(key: tuple[int, ...], hits: Sequence[set[int]]) -> bool:
    """Whether every text of the item `key` (one or two) has a text of the record to itself."""
    if len(key) == 1:
        return any(key[0] in hit for hit in hits)
    first, second = key
    ours = [place for place, hit in enumerate(hits) if first in hit]
    theirs = [place for place, hit in enumerate(hits) if second in hit]
    return bool(ours and theirs) and (len(ours) > 1 or len(theirs) > 1 or ours != theirs)
