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
from selfpos.data.folders import SplitFiles
from selfpos.errors import SelfposError, on_one_line

if TYPE_CHECKING:
    from datasets import Dataset

SHUFFLED = 10_000
"""Records of a Hub set that are in memory at a time, to be drawn from."""
LOOKED_AT = 1_000
"""Records of a stream that show which columns there are."""

Choose = Callable[[Sequence[str]], list[str]]
"""The columns that are there → those to read."""


@dataclass(frozen=True)
class Window:
    """What is read of a stream: its first `limit` records, or all of it; `seed` shuffles what may be
    shuffled.
    """

    limit: int | None
    seed: int


def read(found: SplitFiles, choose: Choose, window: Window | None = None) -> Dataset:
    """The chosen columns of the files, which follow each other; as a stream with a `window`."""
    if window is not None:
        return _spill_files(found, choose, window)
    where = found.files[0] if len(found.files) == 1 else found.files[0].parent
    wanted: list[str] | None = None
    if all(files.kind_of(file) in files.COLUMNAR for file in found.files):
        wanted = choose(
            list(dict.fromkeys(name for file in found.files for name in files.column_names(file)))
        )
    records: list[dict[str, Any]] = []
    for file in found.files:
        records += files.iter_records(file, found.labels, wanted)
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
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SelfposError(
                f"{where}: the field '{name}' holds values of different kinds "
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


def _spill_files(found: SplitFiles, choose: Choose, window: Window) -> Dataset:
    def records() -> Iterator[dict[str, Any]]:
        whole = chain.from_iterable(files.iter_records(file, found.labels) for file in found.files)
        return islice(whole, window.limit)

    key: list[Any] = ["file", window.limit, dict(found.labels)]
    for file in found.files:
        state = file.stat()
        key += [str(file.resolve()), state.st_size, state.st_mtime_ns]
    return _spill(records, choose, key, str(found.files[0]))


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


def _spill(
    records: Callable[[], Iterable[dict[str, Any]]], choose: Choose, key: list[Any], where: str
) -> Dataset:
    """The chosen columns of `records`, in the cache under `key`."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    first = list(islice(records(), LOOKED_AT))
    names = dict.fromkeys(name for record in first for name in record)
    if not names:
        raise SelfposError(f"data file {where} has no records")
    used = choose(list(names))
    lists = {name for record in first for name, value in record.items() if isinstance(value, list)}

    def chosen() -> Iterator[dict[str, Any]]:
        for record in records():
            values = {name: record.get(name) for name in used}
            yield {name: [v] if name in lists and isinstance(v, str) else v for name, v in values.items()}

    fingerprint = hashlib.sha256(json.dumps([*key, used, "names of labels"]).encode()).hexdigest()[:32]
    try:
        spilled = Dataset.from_generator(chosen, fingerprint=fingerprint)
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
