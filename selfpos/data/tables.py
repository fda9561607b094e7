"""Local files and streams as data sets of the columns that a task needs: in memory, or, for data larger than
that, record by record into a file in the cache of `datasets`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data import files
from selfpos.errors import SelfposError, on_one_line

if TYPE_CHECKING:
    from datasets import Dataset

SHUFFLED = 10_000
"""Records of a Hub set that are in memory at a time, to be drawn from."""
LOOKED_AT = 1_000
"""Records of a stream that show which columns there are."""

READING = 4
"""Of the rules of reading: what was cached by others is read again."""
NOTHING: tuple[Any, ...] = (None, [])

Choose = Callable[[Sequence[str]], list[str]]
"""The columns that are there → those to read."""


@dataclass(frozen=True)
class Window:
    """What is read of a stream: its first `limit` records, or all of it; `seed` shuffles what may be
    shuffled.
    """

    limit: int | None
    seed: int


def read(
    paths: Sequence[Path], labels: files.LabelNames, choose: Choose, window: Window | None = None
) -> Dataset:
    """The chosen columns of the files, which follow each other; as a stream with a `window`."""
    if window is not None:
        return _spill_files(paths, labels, choose, window)
    where = paths[0] if len(paths) == 1 else paths[0].parent
    wanted: list[str] | None = None
    if all(files.kind_of(file) in files.COLUMNAR for file in paths):
        wanted = choose(list(dict.fromkeys(name for file in paths for name in files.column_names(file))))
    records: list[dict[str, Any]] = []
    for file in paths:
        records += files.iter_records(file, labels, wanted)
    if not records:
        raise SelfposError(f"data file {where} has no records")
    return from_records(records, choose if wanted is None else lambda _: wanted, where)


def from_records(records: Sequence[Mapping[str, Any]], choose: Choose, where: Path | str) -> Dataset:
    """The chosen columns of the records; a field that a record lacks has no value there."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return _dataset({name: [record.get(name) for record in records] for name in choose(names)}, where)


def _dataset(columns: Mapping[str, list[Any]], where: Path | str) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    alike = {}
    for name, values in columns.items():
        alike[name] = _alike(values)
        try:
            pa.array(alike[name])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise SelfposError(
                f"{where}: the field '{name}' holds values of different kinds, or of more than 64 bits "
                f"({on_one_line(error, 200)}); give it one kind in all records, or name another with "
                "'columns'"
            ) from None
    return Dataset.from_dict(alike)


def _alike(values: list[Any]) -> list[Any]:
    """Single texts among lists become lists of one text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds != {str, list}:
        return values
    return [[value] if isinstance(value, str) else value for value in values]


def aligned(parts: Sequence[Dataset], where: Sequence[str]) -> list[Dataset]:
    """Parts with the same columns, brought to the same kinds of them: a text where others have lists becomes
    a list of one, a whole number where others have text, as all cells of a CSV are, becomes text, and labels
    become their names where others have other labels.

    Raises SelfposError naming other numbers among texts, truth values among numbers, and lists of another
    kind.
    """
    parts = list(parts)
    for name in parts[0].column_names:
        if len({repr(part.features[name]) for part in parts}) > 1:
            parts = [_with_label_names(part, name) for part in parts]
            kinds = [part.features[name] for part in parts]
            wanted = _shared_kind(kinds)
            if wanted is None:
                raise SelfposError(_of_two_kinds(name, kinds, where))
            parts = [_cast(part, name, wanted) for part in parts]
    return parts


def _with_label_names(part: Dataset, name: str) -> Dataset:
    from datasets import ClassLabel, Value

    kind = part.features[name]
    if not isinstance(kind, ClassLabel):
        return part
    features = part.features.copy()
    features[name] = Value("string")
    return part.map(lambda record: files.named(record, {name: kind.names}), features=features)


def _shared_kind(kinds: Sequence[Any]) -> Any:
    """The kind of column that can hold what columns of all these kinds hold, None where there is none."""
    from datasets import LargeList, List, Value

    kinds = [kind for kind in kinds if kind != Value("null")]
    lists = [kind.feature for kind in kinds if isinstance(kind, List | LargeList)]
    words = {_word(kind) for kind in kinds}
    if lists:
        shared = _shared_kind([*lists, *([Value("string")] if "text" in words else [])])
        alone = words <= {"lists"} or (words <= {"lists", "text"} and isinstance(shared, Value))
        return List(shared) if shared is not None and alone else None
    if not words:
        return Value("null")
    if words == {"text"}:
        return Value("string")
    if words <= {"text", "whole numbers"}:
        return Value("string" if "text" in words else "int64")
    if words <= {"whole numbers", "numbers"}:
        return Value("float64")
    return kinds[0] if all(kind == kinds[0] for kind in kinds) else None


def _word(kind: Any) -> str:
    """What a column of this kind holds, in a word."""
    from datasets import LargeList, List

    if isinstance(kind, List | LargeList):
        return "lists"
    dtype = str(getattr(kind, "dtype", kind))
    starts = {"string": "text", "large_string": "text", "int": "whole numbers", "uint": "whole numbers"}
    starts |= {"float": "numbers", "bool": "truth values"}
    return next((word for start, word in starts.items() if dtype.startswith(start)), dtype)


def _of_two_kinds(name: str, kinds: Sequence[Any], where: Sequence[str]) -> str:
    number = next(n for n in range(len(kinds)) if _shared_kind(kinds[: n + 1]) is None)
    other = next(kind for kind in kinds[:number] if _shared_kind([kind, kinds[number]]) is None)
    actual, others = (_word(kind) for kind in (kinds[number], other))
    if actual == others:
        actual, others = f"{actual} of {kinds[number].feature}", f"{others} of {other.feature}"
    return (
        f"data '{where[number]}' has {actual} in '{name}', where others have {others}; give it one kind in "
        "all of them"
    )


def _cast(part: Dataset, name: str, wanted: Any) -> Dataset:
    if _word(wanted) == "lists" and _word(part.features[name]) == "text":
        texts = [None if text is None else [text] for text in part[name]]
        part = part.remove_columns(name).add_column(name, texts).select_columns(part.column_names)
    return part.cast_column(name, wanted)


def _spill_files(paths: Sequence[Path], labels: files.LabelNames, choose: Choose, window: Window) -> Dataset:
    def records() -> Iterator[dict[str, Any]]:
        whole = chain.from_iterable(files.iter_records(file, labels) for file in paths)
        return islice(whole, window.limit)

    key: list[Any] = ["file", window.limit, dict(labels)]
    for file in paths:
        state = file.stat()
        key += [str(file.resolve()), state.st_size, state.st_mtime_ns]
    return _spill(records, choose, key, str(paths[0]))


def spill_hub(
    name: str, config: str | None, split: str, revision: str | None, choose: Choose, window: Window
) -> Dataset:
    """The records of a data set on the Hub.

    With a limit no more of it is fetched than a shuffle within 10,000 records needs.
    """
    import datasets

    stream = datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
    features = stream.features or {}
    labels = {column: kind.names for column, kind in features.items() if hasattr(kind, "names")}
    if window.limit is not None:
        stream = stream.shuffle(seed=window.seed, buffer_size=SHUFFLED).take(window.limit)

    def records() -> Iterator[dict[str, Any]]:
        return (files.named(record, labels) for record in stream)

    return _spill(records, choose, ["hub", name, config, split, revision, window.limit, window.seed], name)


def _until_seen(stream: Iterator[dict[str, Any]], unseen: set[str]) -> Iterator[dict[str, Any]]:
    """The records of `stream` that are the first to have a value for one of the columns `unseen`."""
    for record in stream:
        if filled := {name for name in unseen if record.get(name) not in NOTHING}:
            yield record
            unseen = unseen - filled
            if not unseen:
                return


def _spill(
    records: Callable[[], Iterable[dict[str, Any]]], choose: Choose, key: list[Any], where: str
) -> Dataset:
    """The chosen columns of `records`, in the cache under `key`.

    The first records, and as many more as each column needs to show a value, say what the columns hold.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    stream = iter(records())
    first = list(islice(stream, LOOKED_AT))
    names = dict.fromkeys(name for record in first for name in record)
    if not names:
        raise SelfposError(f"data file {where} has no records")
    used = choose(list(names))
    unseen = {name for name in used if not any(record.get(name) not in NOTHING for record in first)}
    features = None
    if unseen:
        first += _until_seen(stream, unseen)
        features = _dataset({name: [record.get(name) for record in first] for name in used}, where).features
    lists = {name for record in first for name, value in record.items() if isinstance(value, list)}

    def chosen() -> Iterator[dict[str, Any]]:
        columns = dict(names)
        for record in records():
            late = [name for name in record if name not in columns]
            columns |= dict.fromkeys(late)
            if late and set(choose([*columns])) != set(used):
                raise SelfposError(
                    f"{where}: the field '{', '.join(sorted(late))}' is in none of the first {LOOKED_AT:,} "
                    "records, which say what a stream holds; give the first record this field, too, or read "
                    "without streaming"
                )
            values = {name: record.get(name) for name in used}
            yield {name: [v] if name in lists and isinstance(v, str) else v for name, v in values.items()}

    fingerprint = hashlib.sha256(json.dumps([*key, used, READING]).encode()).hexdigest()[:32]
    try:
        spilled = Dataset.from_generator(chosen, features=features, fingerprint=fingerprint)
    except (DatasetGenerationError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason: BaseException = error.__cause__ or error
        if isinstance(reason, SelfposError | OSError):
            raise reason from None
        raise SelfposError(
            f"{where}: a field holds values of different kinds ({on_one_line(reason, 200)}); give each "
            "field one kind in all records"
        ) from None
    for name, feature in spilled.features.items():
        if type(feature).__name__ == "Json":  # what `datasets` makes of mixed kinds
            raise SelfposError(
                f"{where}: the field '{name}' holds values of different kinds; give it one kind in all "
                "records"
            )
    return spilled
