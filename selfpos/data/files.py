"""Reading records from local files: JSON Lines (also gzipped), JSON, CSV, TSV, Parquet, and folders in the
BEIR layout; data larger than memory record by record, into a file in the cache of `datasets`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from selfpos.errors import SelfposError, on_one_line

if TYPE_CHECKING:
    from datasets import Dataset

SHUFFLED = 10_000
"""Records of a Hub set that are in memory at a time, to be drawn from."""

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet")


def find(folder: Path, stem: str, endings: tuple[str, ...] = ENDINGS) -> Path | None:
    """The file `stem` with one of `endings` in `folder`, or None."""
    return next((file for ending in endings if (file := folder / f"{stem}{ending}").is_file()), None)


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


def read_beir(
    folder: Path, split: str
) -> tuple[dict[str, dict[str, str]], dict[str, str], dict[str, dict[str, int]]]:
    """A retrieval set in the BEIR layout: documents (id -> title, text), queries (id -> text), and judgements
    of `split` (query -> document -> grade).

    Raises SelfposError for a missing file, a line that does not fit, or a judgement of a query or document
    that does not exist.
    """
    parts = beir_files(folder, split)
    missing = [expected for expected, file in parts.items() if file is None]
    if missing:
        raise SelfposError(f"{folder} lacks {', '.join(missing)}")
    corpus, query_lines, qrels = (file for file in parts.values() if file is not None)
    documents = {
        _id(row, corpus): {"title": row.get("title") or "", "text": row.get("text") or ""}
        for row in read_records(corpus)
    }
    queries = {_id(row, query_lines): row.get("text") or "" for row in read_records(query_lines)}
    relevant: dict[str, dict[str, int]] = {}
    for number, line in enumerate(qrels.read_text(encoding="utf-8").splitlines()[1:], start=2):
        try:
            query, document, grade = line.split("\t")
            relevant.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise SelfposError(
                f"{qrels}, line {number}: expected query-id, corpus-id and a whole score between tabs, "
                f"found {line!r}"
            ) from None
        if query not in queries or document not in documents:
            raise SelfposError(f"{qrels}, line {number}: there is no query {query} or no document {document}")
    if not relevant:
        raise SelfposError(f"{qrels} has no judgements")
    return documents, queries, relevant


def beir_files(folder: Path, split: str) -> dict[str, Path | None]:
    """The three files of a BEIR folder by what they are called, None for one that is not there."""
    lines = (".jsonl", ".jsonl.gz")
    return {
        "corpus.jsonl[.gz]": find(folder, "corpus", lines),
        "queries.jsonl[.gz]": find(folder, "queries", lines),
        f"qrels/{split}.tsv": find(folder / "qrels", split, (".tsv",)),
    }


def document_text(document: dict[str, str]) -> str:
    """Title and text as one, as MTEB joins them."""
    return f"{document.get('title') or ''} {document['text']}".strip()


def _id(row: dict[str, Any], file: Path) -> str:
    if "_id" not in row:
        raise SelfposError(f"{file}: a record has no field '_id'; found {', '.join(row)}")
    return str(row["_id"])


def iter_records(file: Path) -> Iterator[dict[str, Any]]:
    """The records of `file` one after the other, as dictionaries.

    JSON Lines and Parquet are read bit by bit, other kinds whole.

    Raises SelfposError naming the file (and line) when it is damaged or of unknown kind.
    """
    name = file.name.lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(file)
    elif name.endswith(".parquet"):
        yield from _parquet(file)
    elif name.endswith(".json"):
        yield from _json(file)
    elif name.endswith((".csv", ".tsv")):
        yield from _table(file)
    else:
        raise SelfposError(f"data file {file} is of no known kind; expected one of {', '.join(ENDINGS)}")


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        # utf-8-sig: some programs begin a file with a byte order mark
        with (
            gzip.open(file, "rt", encoding="utf-8-sig")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8-sig") as stream
        ):
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise SelfposError(
                            f"data file {file}, line {number}: expected a JSON object, found "
                            f"{type(record).__name__}"
                        )
                    yield record
    except json.JSONDecodeError as error:
        raise SelfposError(f"data file {file}, line {number} is not JSON: {error.msg}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SelfposError(
            f"data file {file} cannot be read to its end (after line {number}): {error}"
        ) from None


def _json(file: Path) -> list[dict[str, Any]]:
    try:
        records = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise SelfposError(f"data file {file} is not JSON: {error}") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise SelfposError(f"data file {file} must hold a list of JSON objects")
    return records


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        for rows in pyarrow.parquet.ParquetFile(file).iter_batches(10_000):
            yield from rows.to_pylist()
    except (ValueError, OSError) as error:  # Arrow's own errors are ValueErrors
        raise SelfposError(f"data file {file} cannot be read: {on_one_line(error)}") from None


def _table(file: Path) -> list[dict[str, Any]]:
    import pandas as pd

    try:
        # Only an empty cell is a missing value: "NA" and "null" are words.
        frame = pd.read_csv(
            file, sep="\t" if file.suffix.lower() == ".tsv" else ",", keep_default_na=False, na_values=[""]
        )
    except pd.errors.EmptyDataError:
        return []
    except (ValueError, OSError) as error:  # the parser's own errors are ValueErrors
        raise SelfposError(f"data file {file} cannot be read: {on_one_line(error)}") from None
    frame = frame.rename(columns=str).astype(object)
    return cast("list[dict[str, Any]]", frame.where(frame.notna(), None).to_dict("records"))


@dataclass(frozen=True)
class Window:
    """What is read of a stream: its first `limit` records, or all of it; `seed` shuffles what may be
    shuffled.
    """

    limit: int | None
    seed: int


def spill_file(file: Path, window: Window) -> Dataset:
    """The records of the local `file`, which is read again only where it has changed."""
    state = file.stat()
    key = ["file", str(file.resolve()), state.st_size, state.st_mtime_ns, window.limit]
    return _spill(lambda: islice(iter_records(file), window.limit), key, str(file))


def spill_hub(name: str, config: str | None, split: str, revision: str | None, window: Window) -> Dataset:
    """The records of a data set on the Hub.

    With a limit no more of it is fetched than a shuffle within 10,000 records needs.
    """
    import datasets

    def records() -> Iterator[dict[str, Any]]:
        stream = datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
        if window.limit is not None:
            stream = stream.shuffle(seed=window.seed, buffer_size=SHUFFLED).take(window.limit)
        yield from stream

    return _spill(records, ["hub", name, config, split, revision, window.limit, window.seed], name)


def _spill(records: Callable[[], Iterator[dict[str, Any]]], key: list[Any], where: str) -> Dataset:
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    fingerprint = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    try:
        return Dataset.from_generator(records, fingerprint=fingerprint)
    except DatasetGenerationError as error:
        reason: BaseException = error.__cause__ or error
        if isinstance(reason, SelfposError | OSError):
            raise reason from None
        raise SelfposError(
            f"{where}: its records do not fit each other: {on_one_line(reason, 300)}"
        ) from None
