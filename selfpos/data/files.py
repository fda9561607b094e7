"""Records in local files: JSON Lines, JSON, CSV, TSV, Parquet and Arrow, plain or compressed.

A CSV has quoting, a TSV has none (IANA, text/tab-separated-values): a cell there is what stands between tabs.
Cells are texts. Labels that a file names (ClassLabel in Parquet) are read as their names.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

from selfpos.console import log
from selfpos.data import columnar
from selfpos.errors import SelfposError, on_one_line
from selfpos.storage.documents import parse_json

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSED = ("", ".gz", ".bz2", ".xz", ".zst")
ENDINGS = tuple(kind + packed for kind in KINDS for packed in COMPRESSED)
COLUMNAR = (".parquet", ".arrow")
POINTER = b"version https://git-lfs.github.com/spec/"
QUOTED = re.compile('"[^"]*"')
MOST_LINE = 10_000_000  # characters
MOST_TEXT = 2_000_000  # characters: a long book
MOST_JSON = 100_000_000  # characters of a file that is one value, which takes ten times the memory
MOST_COLUMNS = 10_000
HALF_PAIR = re.compile("[\ud800-\udfff]")

LabelNames = Mapping[str, list[str]]
"""Column → the names of its labels, by their numbers."""


def kind_of(file: Path, kinds: Sequence[str] = KINDS) -> str:
    """The ending among `kinds` of a file's name, before the one of its compression; empty for other files."""
    name = file.name.lower()
    for packed in COMPRESSED[1:]:
        name = name.removesuffix(packed)
    return next((kind for kind in kinds if name.endswith(kind)), "")


def find(folder: Path, stem: str, endings: tuple[str, ...] = ENDINGS) -> Path | None:
    """The file `stem` with one of `endings`, in any case, in `folder`, or None."""
    there = {file.name[len(stem) :].lower(): file for file in folder.glob("*") if file.name.startswith(stem)}
    return next((there[ending] for ending in endings if ending in there and there[ending].is_file()), None)


def read_records(file: Path) -> list[dict[str, Any]]:
    """All records of `file`, as dictionaries.

    Raises SelfposError naming the file (and line) when it is missing, empty, damaged or of unknown kind.
    """
    if not file.is_file():
        raise SelfposError(f"there is no data file {file}")
    records = list(iter_records(file))
    if not records:
        raise SelfposError(f"data file {file} has no records")
    return records


def iter_records(
    file: Path, names: LabelNames | None = None, columns: Iterable[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The records of `file` one after the other, as dictionaries; labels by `names` or the file's own. Of
    Parquet and Arrow only `columns`, where they are given.

    JSON is read whole, other kinds bit by bit.

    Raises SelfposError naming the file (and line) when it is damaged or of unknown kind.
    """
    check_content(file)
    kind = kind_of(file)
    if kind in COLUMNAR:
        yield from _columnar(file, names or {}, columns)
        return
    readers = {".json": _json, ".csv": _csv, ".tsv": _tsv}
    with _text(file) as stream:
        lines: Any = stream if kind in (".json", ".csv") else _lines(file, stream)
        for record in readers.get(kind, _json_lines)(file, lines):
            _refuse_long(file, record)
            yield named(record, names) if names else record


def lines_of(file: Path) -> Iterator[str]:
    """The lines of a text file, plain or compressed. Raises SelfposError where it is damaged."""
    with _text(file) as stream:
        yield from _lines(file, stream)


def whole_text(file: Path) -> str:
    """A text file, plain or compressed, with \\n for line ends. Raises SelfposError where it is damaged."""
    with _text(file) as stream:
        return stream.read().replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def _text(file: Path) -> Iterator[IO[str]]:
    try:
        # utf-8-sig: some programs begin a file with a byte order mark; only \n ends a line of JSON or TSV
        with _opened(file) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n") as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise SelfposError(
            f"data file {file} is not UTF-8 ({on_one_line(error)}); save it as UTF-8"
        ) from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise SelfposError(f"data file {file} cannot be read to its end: {on_one_line(error)}") from None


def check_content(file: Path) -> None:
    """Raise SelfposError where the name is of no known kind, or Git LFS left a pointer in the file's
    place.
    """
    if not kind_of(file):
        raise SelfposError(
            f"data file {file} is of no known kind; expected one of {', '.join(KINDS)}, plain or with "
            f"{', '.join(COMPRESSED[1:])} after it"
        )
    _refuse_pointer(file)


def _refuse_pointer(file: Path) -> None:
    with file.open("rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            raise SelfposError(
                f"data file {file} is a pointer of Git LFS, not the data; fetch that with `git lfs pull`"
            )


def column_names(file: Path) -> list[str]:
    """The columns of a Parquet or Arrow file, without reading them."""
    check_content(file)
    with columnar.reading(file):
        return list(_batches(file, None)[0].names)


def named(record: Mapping[str, Any], names: LabelNames) -> dict[str, Any]:
    """The record with the names of its labels for their numbers; None for a number without a name."""
    return {
        column: _name(value, names[column]) if column in names else value for column, value in record.items()
    }


def _name(value: Any, names: list[str]) -> Any:
    """The name for a number, also one that a CSV has as text, or pandas as 1.0."""
    if isinstance(value, list):
        return [_name(item, names) for item in value]
    if value is None or value in names or isinstance(value, bool):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    return names[int(number)] if number.is_integer() and 0 <= number < len(names) else None


def _opened(file: Path) -> IO[bytes]:
    _refuse_pointer(file)
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstandard}
    opened: IO[bytes] = openers.get(file.suffix.lower(), Path.open)(file, "rb")
    return opened


def _zstandard(file: Path, _: str) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(file), compression="zstd"))  # type: ignore[arg-type]


def _lines(file: Path, stream: IO[str]) -> Iterator[str]:
    """The lines of `stream`; one that is too long is refused before it is read."""
    for number in count(1):
        line = stream.readline(MOST_LINE + 1)
        if len(line) > MOST_LINE:
            raise SelfposError(
                f"data file {file}, line {number} has more than {MOST_LINE:,} characters; split its texts, "
                "or leave it out"
            )
        if not line:
            return
        yield line


def _refuse_long(file: Path, record: Mapping[str, Any]) -> None:
    for column, value in record.items():
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str) and len(text) > MOST_TEXT:
                raise SelfposError(
                    f"data file {file}: a text in column '{column}' has {len(text):,} characters; expected "
                    f"at most {MOST_TEXT:,}: split it, or leave the record out"
                )


def _integer(digits: str) -> int | str:
    """The integer; one of more than 64 bits, which no table holds, stays a text."""
    fits = len(digits) <= 20 and -(2**63) <= int(digits) < 2**63
    return int(digits) if fits else digits


def _json_lines(file: Path, stream: Iterable[str], start: int = 1) -> Iterator[dict[str, Any]]:
    mended = 0
    for number, line in enumerate(stream, start):
        if not line.strip():
            continue
        try:
            record = parse_json(line, strict=False, integer=_integer)
        except ValueError as error:
            hint = "; a list over several lines is read from a file called .json" if line[0] == "[" else ""
            raise SelfposError(f"data file {file}, line {number} {_fault(error)}{hint}") from None
        if isinstance(record, list):
            record = _listed(record)
        if not isinstance(record, dict):
            raise SelfposError(
                f"data file {file}, line {number}: expected a JSON object or a list of texts, found "
                f"{type(record).__name__}"
            )
        if "\\u" in line and HALF_PAIR.search(json.dumps(record, ensure_ascii=False)):
            record, mended = _mended(record), mended + 1
        yield {"anchor": record["set"][0], "positive": record["set"][1:]} if _is_set(record) else record
    if mended:
        log.warning("%s: half a surrogate pair in %d records is read as \ufffd", file, mended)


def _fault(error: ValueError) -> str:
    return (
        f"is not JSON: {error.msg}" if isinstance(error, json.JSONDecodeError) else f"cannot be read: {error}"
    )


def _listed(texts: list[Any]) -> Any:
    """A line `[question, answer, wrong answer …]`, as the embedding-training-data sets have it."""
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        return texts
    names = ["anchor", "positive", "negative", *(f"negative_{number}" for number in range(2, len(texts)))]
    return dict(zip(names, texts, strict=False))


def _is_set(record: dict[str, Any]) -> bool:
    """Whether it is `{"set": [text, text …]}`, texts that say the same."""
    return list(record) == ["set"] and isinstance(record["set"], list) and len(record["set"]) > 1


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return HALF_PAIR.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    return {_mended(key): _mended(item) for key, item in value.items()} if isinstance(value, dict) else value


def _is_value(line: str) -> bool:
    """Whether it is an object or a list for itself, as in JSON Lines."""
    try:
        return isinstance(parse_json(line, strict=False, integer=_integer), dict | list)
    except ValueError:
        return False


def _json(file: Path, stream: IO[str]) -> Iterator[dict[str, Any]]:
    """A list of objects, an object with one such list or with a list for each column, or JSON Lines."""
    text = stream.read(MOST_JSON + 1)
    if len(text) > MOST_JSON:
        if _is_value(text.lstrip()[:MOST_LINE].partition("\n")[0]):
            return _json_lines(file, lines_of(file))
        raise SelfposError(
            f"data file {file} has more than {MOST_JSON:,} characters in one JSON value; write it as JSON "
            "Lines (.jsonl), one record a line, which is read bit by bit"
        )
    try:
        content = parse_json(text, strict=False, integer=_integer)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            position = f"line {error.lineno}, column {error.colno}"
            raise SelfposError(f"data file {file} {_fault(error)} ({position})") from None
        return _json_lines(file, text.split("\n"))
    except ValueError as error:
        raise SelfposError(f"data file {file} {_fault(error)}") from None
    content = _records_of(content)
    if not isinstance(content, list) or not _are_records(content):
        raise SelfposError(
            f"data file {file} must hold a list of JSON objects, an object with one such list, or JSON Lines"
        )
    return _json_lines(file, map(json.dumps, content))


def _records_of(content: Any) -> Any:
    """The records that a JSON object holds; other values as they are."""
    if not isinstance(content, dict):
        return content
    lists = {key: value for key, value in content.items() if isinstance(value, list)}
    if len(lists) == len(content) and len({len(value) for value in lists.values()}) == 1 < len(lists):
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if len(lists) == 1 and _are_records(*lists.values()):
        return next(iter(lists.values()))
    if any(isinstance(value, str) for value in content.values()):
        return [content]  # JSON Lines of one record
    return content


def _are_records(values: list[Any]) -> bool:
    return all(isinstance(value, dict | list) for value in values)


def _csv(file: Path, stream: IO[str]) -> Iterator[dict[str, Any]]:
    with _opened(file) as raw:
        lines = (
            line.decode("utf-8-sig", errors="replace") for line in iter(partial(raw.readline, MOST_LINE), b"")
        )
        head = QUOTED.sub("", next((line for line in lines if line.strip()), ""))
    # a spreadsheet may write another than the comma
    separator = "," if "," in head else max(",;\t", key=head.count)
    _refuse_columns(file, head.count(separator) + 1)
    spaced = f"{separator} " in head
    csv.field_size_limit(MOST_LINE)  # of the process; Python's own is shorter than a long text
    rows = csv.reader(stream, delimiter=separator, skipinitialspace=spaced, strict=True)
    filled = (cells for cells in rows if len(cells) > 1 or "".join(cells).strip())
    try:
        names = _unique(next(filled, []))
        for cells in filled:
            if len(cells) > len(names):
                raise csv.Error(f"it has {len(cells)} cells, and the first line names {len(names)} columns")
            cells += [""] * (len(names) - len(cells))
            yield {name: cell or None for name, cell in zip(names, cells, strict=True)}
    except csv.Error as error:
        raise SelfposError(
            f"data file {file}, line {rows.line_num} cannot be read: {on_one_line(error)}; each line needs "
            "as many cells as the first has names, a cell with commas, quotes or line ends in it stands "
            "between quotes, and a quote in it is written twice"
        ) from None


def _refuse_columns(file: Path, count: int) -> None:
    if count > MOST_COLUMNS:
        raise SelfposError(
            f"data file {file} has {count:,} columns in its first line; expected at most {MOST_COLUMNS:,}: "
            "keep those that the task needs"
        )


def _unique(cells: Sequence[str | None]) -> list[str]:
    """The names of columns; those without one, or with that of another, have their number in it."""
    names: list[str] = []
    for number, cell in enumerate(cells, start=1):
        name = cell or "column"
        names.append(f"{name} {number}" if not cell or name in names else name)
    return names


def _tsv(file: Path, stream: IO[str]) -> Iterator[dict[str, Any]]:
    names: list[str] = []
    for number, line in enumerate(stream, start=1):
        cells = line.rstrip("\r\n").split("\t")
        if not names:
            _refuse_columns(file, len(cells))
            names = _unique(cells)
        elif len(cells) > len(names):
            raise SelfposError(
                f"data file {file}, line {number} has {len(cells)} cells, and the first line names "
                f"{len(names)} columns ({', '.join(names)[:200]}); give the file a first line with a name "
                "for each"
            )
        elif any(cells):
            cells += [""] * (len(names) - len(cells))
            yield {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _batches(file: Path, columns: Iterable[str] | None) -> tuple[Any, Iterable[Any]]:
    return columnar.batches(file, columns, parquet=kind_of(file) == ".parquet")


def _columnar(file: Path, names: LabelNames, columns: Iterable[str] | None) -> Iterator[dict[str, Any]]:
    with columnar.reading(file):
        schema, batches = _batches(file, columns)
        names = {**columnar.label_names(schema), **names}
        for batch in batches:
            for record in batch.to_pylist():
                _refuse_long(file, record)
                yield named(record, names)
