"""Rows of Parquet and Arrow files in parts, and the names of labels that such files have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError, on_one_line
from selfpos.storage.documents import parse_json

ROWS = 10_000  # of a part


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """A block in which `file` is read. Raises SelfposError where it is damaged."""
    try:
        yield
    except (ValueError, OSError, LookupError) as error:  # Arrow's own errors are ValueErrors
        raise SelfposError(f"data file {file} cannot be read: {on_one_line(error)}") from None


def batches(file: Path, columns: Iterable[str] | None, *, parquet: bool) -> tuple[Any, Iterable[Any]]:
    """The schema of a Parquet or Arrow file, and its rows in parts, of those of `columns` that it has."""
    import pyarrow.parquet

    opened = pyarrow.parquet.ParquetFile(file) if parquet else _arrow(file)
    schema = opened.schema_arrow if parquet else opened.schema
    chosen = [name for name in schema.names if columns is None or name in set(columns)]
    if parquet:
        return schema, opened.iter_batches(ROWS, columns=chosen)
    return schema, (batch.select(chosen) for batch in _in_parts(opened))


def _arrow(file: Path) -> Any:
    """A reader of Arrow's stream, as `datasets` writes it, or of its file, as Polars does."""
    import pyarrow as pa

    mapped = pa.memory_map(str(file))
    is_file = mapped.read(6) == b"ARROW1"
    mapped.seek(0)
    return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)


def _in_parts(opened: Any) -> Iterator[Any]:
    """The rows of an Arrow reader, a part of one of its batches at a time."""
    count = getattr(opened, "num_record_batches", None)
    whole = opened if count is None else (opened.get_batch(number) for number in range(count))
    for batch in whole:
        yield from (batch.slice(start, ROWS) for start in range(0, batch.num_rows, ROWS))


def label_names(schema: Any) -> dict[str, list[str]]:
    """The names of labels that `datasets` wrote into the file."""
    try:
        features = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    names_of = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        for inner in (feature, feature.get("feature") if isinstance(feature, dict) else None):
            if not isinstance(inner, dict) or inner.get("_type") != "ClassLabel":
                continue
            if isinstance(names := inner.get("names"), list) and names:
                names_of[column] = [str(name) for name in names]
    return names_of
