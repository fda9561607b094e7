"""Overlap of training records with test data: which test items a record contains, word for word or nearly.

A test item is what a task scores: a pair of texts (similarity, pair classification, bitext), a text
(classification, clustering) or a query (retrieval, reranking). A record contains it when each of the item's
texts is among the record's, in any order. Documents that a retrieval task searches in are no items.

For near texts, MinHash proposes and the exact Jaccard similarity of their shingles decides. Shingles are runs
of characters, so that short texts and scripts without spaces are compared like any other. Signatures come
from the library rensa (Broder 1997's MinHash, in the manner of Dahlgaard, Knudsen and Thorup 2017); they are
compared in bands, as Leskovec, Rajaraman and Ullman (Mining of Massive Datasets, section 3.4) describe.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import quiet_libraries

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks import AbsTask

Item = tuple[str, ...]
"""The texts of one test item."""
Key = tuple[int, ...]
"""The same as numbers of normalised texts."""

RECORDS_AT_ONCE = 1000  # in memory
LENGTH = 5  # characters of a shingle
MISSED = 1e-3  # share of pairs at the threshold itself that the bands may miss; of nearer pairs far fewer
SLOTS = 256  # of a signature, at most
SIGNATURES_AT_ONCE = 500  # texts: what they take stays in a core's cache
_WORDS = re.compile(r"\w+")
_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class TaskOverlap:
    """Of a task's `items`, `exact` are contained word for word and `near` nearly so.

    `texts` of them are somewhere in the records, alone or not. `records` contain an item.
    """

    items: int
    exact: int
    near: int
    texts: int
    records: int


@dataclass(frozen=True)
class Overlap:
    """What a set of records shares with each task, and the `rows` that contain an item."""

    records: int
    rows: list[int]
    tasks: dict[str, TaskOverlap]

    def facts(self) -> dict[str, Any]:
        """The same as JSON takes it, without the rows."""
        tasks = {task: asdict(overlap) for task, overlap in self.tasks.items()}
        return {"records": self.records, "overlapping": len(self.rows), "tasks": tasks}


class ItemIndex:
    """The test items of several tasks; memory grows with them, not with the records that are checked.

    `threshold` is the Jaccard similarity of near texts; None compares word for word.
    """

    def __init__(self, tests: Mapping[str, Sequence[Item]], threshold: float | None = 0.8) -> None:
        self._ids: dict[str, int] = {}  # normalised text → its number
        self.items: dict[str, Counter[Key]] = {}
        self._items_with: dict[int, list[tuple[str, Key]]] = defaultdict(list)
        for task, items in tests.items():
            ids = ([self._ids.setdefault(normalise(text), len(self._ids)) for text in item] for item in items)
            keys = [tuple(sorted(item_ids)) for item_ids in ids]
            self.items[task] = Counter(keys)
            for key in self.items[task]:
                for text_id in set(key):
                    self._items_with[text_id].append((task, key))
        self._near = NearIndex(list(self._ids), threshold) if threshold is not None else None

    def check(self, records: Dataset, columns: Sequence[str]) -> Overlap:
        """What `records` share with every task. `columns` hold texts or lists of texts."""
        contained: dict[str, dict[Key, bool]] = {task: {} for task in self.items}  # item → word for word?
        rows: dict[str, list[int]] = {task: [] for task in self.items}
        shared_ids: set[int] = set()
        start = 0
        for batch in records.select_columns(list(columns)).iter(RECORDS_AT_ONCE):
            texts = [_texts_of(values) for values in zip(*batch.values(), strict=True)]
            similar = self._similar({text for record in texts for text in record})
            for row, record in enumerate(texts, start=start):
                similar_texts = [text for text in record if text in similar]
                near = [similar[text] for text in similar_texts]
                exact = [{self._ids[text]} if text in self._ids else set() for text in similar_texts]
                shared_ids.update(*exact)
                tasks = set()
                candidates = {text_id for ids in near for text_id in ids}
                for task, key in {item for text_id in candidates for item in self._items_with[text_id]}:
                    word_for_word = _contains(key, exact)
                    if word_for_word or _contains(key, near):
                        contained[task][key] = contained[task].get(key, False) or word_for_word
                        tasks.add(task)
                for task in tasks:
                    rows[task].append(row)
            start += len(texts)
        overlaps = {}
        for task, items in self.items.items():
            overlaps[task] = TaskOverlap(
                items=items.total(),
                exact=sum(items[key] for key, exact in contained[task].items() if exact),
                near=sum(items[key] for key, exact in contained[task].items() if not exact),
                texts=len({text_id for key in items for text_id in key} & shared_ids),
                records=len(rows[task]),
            )
        return Overlap(len(records), sorted(set().union(*rows.values())), overlaps)

    def _similar(self, texts: set[str]) -> dict[str, set[int]]:
        """Each of `texts` that equals or is near to an indexed text → the numbers of all such texts."""
        similar = {text: {self._ids[text]} for text in texts if text in self._ids}
        if self._near is not None:
            ordered = sorted(texts)
            for index, near in self._near.near(ordered).items():
                similar.setdefault(ordered[index], set()).update(near)
        return similar


def _texts_of(values: Sequence[Any]) -> list[str]:
    """The normalised texts of one record, whose columns hold texts or lists of texts."""
    texts: list[str] = []
    for value in values:
        texts += [value] if isinstance(value, str) else list(value or [])
    return [normalise(text) for text in texts]


def _contains(key: Key, matches: Sequence[set[int]]) -> bool:
    """Whether each text of the item `key` (one or two) matches a text of the record, two of them different
    ones.
    """
    if len(key) == 1:
        return any(key[0] in match for match in matches)
    first = [index for index, match in enumerate(matches) if key[0] in match]
    second = [index for index, match in enumerate(matches) if key[1] in match]
    return bool(first and second) and (len(first) > 1 or len(second) > 1 or first != second)


def normalise(text: str) -> str:
    """The words of `text` without case, punctuation and spacing, in Unicode's compatible form (NFKC)."""
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))


class NearIndex:
    """Finds texts near to indexed ones by bands of MinHash signatures: some thirty of 50 bytes a text."""

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self.texts, self.threshold = list(texts), threshold
        self.bands, self.rows = band_shape(threshold)
        self._rows_with: dict[int, list[int]] = defaultdict(list)
        for start in range(0, len(self.texts), SIGNATURES_AT_ONCE):
            keys = self._keys(self.texts[start : start + SIGNATURES_AT_ONCE])
            for row, row_keys in enumerate(keys.tolist(), start=start):
                for key in row_keys:
                    self._rows_with[key].append(row)
        self._known = np.sort(np.fromiter(self._rows_with, np.uint64, len(self._rows_with)))

    def near(self, texts: Sequence[str]) -> dict[int, list[int]]:
        """Index in `texts` → the rows of the index near to that text, in order; nothing for texts without
        one.
        """
        if not self.texts:
            return {}
        result: dict[int, list[int]] = {}
        for start in range(0, len(texts), SIGNATURES_AT_ONCE):
            keys = self._keys(texts[start : start + SIGNATURES_AT_ONCE])
            indexed = self._known[np.searchsorted(self._known, keys).clip(max=len(self._known) - 1)] == keys
            for index in np.flatnonzero(indexed.any(1)).tolist():
                shared = keys[index][indexed[index]].tolist()
                candidates = {row for key in shared for row in self._rows_with[key]}
                wanted = shingles(texts[start + index])
                close = [row for row in sorted(candidates) if self._is_near(wanted, self.texts[row])]
                if close:
                    result[start + index] = close
        return result

    def _is_near(self, wanted: frozenset[str], text: str) -> bool:
        if max(1, len(text) - LENGTH + 1) < self.threshold * len(wanted):
            return False  # too short to share enough shingles
        others = shingles(text)
        shared = len(wanted & others)
        return shared >= self.threshold * (len(wanted) + len(others) - shared)

    def _keys(self, texts: Sequence[str]) -> np.ndarray:
        """One number for each band of each text, (n, bands). Equal bands have equal numbers."""
        from rensa import RMinHash

        hashes, offsets = _shingle_hashes(texts)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, self.bands * self.rows, 1)
        values = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(texts), self.bands, self.rows)
        keys = np.broadcast_to(np.arange(self.bands, dtype=np.uint64), values.shape[:2]).copy()
        for row in range(self.rows):
            keys = (keys ^ values[:, :, row]) * _PRIME
            keys ^= keys >> np.uint64(29)
        return keys


def band_shape(threshold: float) -> tuple[int, int]:
    """(bands, rows) with the most rows whose bands find a pair at `threshold`, but for `MISSED`."""
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must lie above 0 and up to 1, found {threshold:g}")
    best = (SLOTS, 1)
    for rows in range(1, 9):
        chance = threshold**rows
        bands = 1 if chance == 1 else math.ceil(math.log(MISSED) / math.log1p(-chance))
        if bands * rows <= SLOTS:
            best = (bands, rows)
    return best


def shingles(text: str) -> frozenset[str]:
    """The runs of `LENGTH` characters in `text`; a shorter text is its own only one."""
    return frozenset(text[start : start + LENGTH] for start in range(max(1, len(text) - LENGTH + 1)))


def _shingle_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all texts' shingles, and where each text's begin and end, (n + 1); both uint64."""
    padded = [text.ljust(LENGTH, "\0") for text in texts]
    characters = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes = np.zeros(len(characters) - LENGTH + 1, np.uint64)
    for offset in range(LENGTH):
        hashes *= _PRIME
        hashes += characters[offset : offset + len(hashes)]
    hashes ^= hashes >> np.uint64(31)
    hashes *= _PRIME
    lengths = np.array([len(text) for text in padded])
    counts = lengths - LENGTH + 1
    ends = np.cumsum(lengths)
    inside = np.ones(len(characters), bool)
    for back in range(1, LENGTH):  # no shingle begins in the last four characters of a text
        inside[ends - back] = False
    return hashes[inside[: len(hashes)]], np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)


def items_of(task: AbsTask) -> list[Item] | None:
    """The items of the task's evaluation splits; None for an unknown kind of task. Its data is unloaded
    again.
    """
    with quiet_libraries(hide_warnings=True):
        columns = _columns(task)
        if columns is None:
            return None
        task.load_data()
        try:
            items: list[Item] = []
            for table in _tables(task):
                items += zip(*(_texts(table[column]) for column in columns), strict=True)
            return items
        finally:
            task.unload_data()


def _columns(task: Any) -> list[str] | None:
    from mteb import abstasks

    if isinstance(task, abstasks.AbsTaskRetrieval):
        return ["text"]
    if isinstance(task, abstasks.AbsTaskSTS):
        return list(task.column_names)
    if isinstance(task, abstasks.AbsTaskPairClassification):
        columns = [task.input1_column_name, task.input2_column_name]
        return columns if all(isinstance(name, str) for name in columns) else None
    if isinstance(task, abstasks.AbsTaskBitextMining):
        return None if task.parallel_subsets else ["sentence1", "sentence2"]
    name = getattr(task, "input_column_name", None)
    return [name] if isinstance(name, str) else None


def _tables(task: Any) -> Iterator[Any]:
    """The table of every split that is scored, of every subset; of retrieval that of its queries."""
    data = task.dataset
    scored = set(task.eval_splits)
    by_subset = data.values() if not scored & set(data) else [data]
    for splits in by_subset:
        for split in task.eval_splits:
            if split in splits:
                yield splits[split]["queries"] if "queries" in splits[split] else splits[split]


def _texts(column: Any) -> list[str]:
    """The texts of a column; older tasks keep a list of them in each row, conversations a list of turns."""
    texts: list[str] = []
    for value in column:
        if isinstance(value, str):
            texts.append(value)
        elif all(isinstance(turn, dict) for turn in value):
            texts.append("\n".join(str(turn.get("content", "")) for turn in value))
        else:
            texts += map(str, value)
    return texts
