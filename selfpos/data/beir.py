"""Retrieval sets in the BEIR layout: documents, queries, and judgements of which documents answer which
query.

Judgements are a table of query, document and grade: BEIR's with a first line of names, the same without one,
TREC's four columns, JSON Lines or Parquet. Grades are whole numbers, also written as 1.0; above 0 is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from selfpos.data.files import ENDINGS, find, iter_records, kind_of
from selfpos.data.folders import split_files
from selfpos.errors import SelfposError

IDS = ("_id", "id", "docid", "doc_id", "query_id", "qid")
QUERY = ("query-id", "query_id", "qid", "query", "topic")
DOCUMENT = ("corpus-id", "corpus_id", "doc_id", "docid", "docno", "document_id", "pid", "doc")
GRADE = ("score", "relevance", "rel", "label", "grade")


class Beir(NamedTuple):
    """Documents (id → title and text), queries (id → text), judgements (query → document → grade), and how
    many judgements point at what is not there, by `query` and `document`.
    """

    documents: dict[str, dict[str, str]]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    left_out: Counter[str]

    @property
    def remark(self) -> str:
        """What was left out, in words; empty where nothing was."""
        counts = [f"{count} of a {kind} that is not there" for kind, count in self.left_out.items()]
        return f"judgements left out: {', '.join(counts)}" if counts else ""


def read_beir(folder: Path, split: str) -> Beir:
    """The retrieval set in `folder`, with the judgements of `split`.

    Raises SelfposError for a missing file, a line that does not fit, or no judgement of what is there.
    """
    parts = beir_files(folder, split)
    missing = [expected for expected, file in parts.items() if file is None]
    if missing:
        raise SelfposError(f"{folder} lacks {', '.join(missing)}")
    corpus, questions, judgements = (file for file in parts.values() if file is not None)
    documents = {
        _id(row, corpus): {"title": str(row.get("title") or ""), "text": str(row.get("text") or "")}
        for row in iter_records(corpus)
    }
    queries = {
        _id(row, questions): str(row.get("text") or row.get("query") or "") for row in iter_records(questions)
    }
    return joined(documents, queries, _judgements(judgements), str(judgements))


def joined(
    documents: dict[str, dict[str, str]],
    queries: dict[str, str],
    judgements: Iterable[tuple[str, str, int]],
    where: str,
) -> Beir:
    """The judgements of queries and documents that are there, counting the others."""
    relevant: dict[str, dict[str, int]] = {}
    left_out: Counter[str] = Counter()
    for query, document, grade in judgements:
        if query in queries and document in documents:
            relevant.setdefault(query, {})[document] = grade
        else:
            left_out["query" if query not in queries else "document"] += 1
    if not relevant:
        found = ""
        if left_out:
            found = (
                f" of a query and a document that are there; its ids are such as '{query}' and "
                f"'{document}', those of the queries and documents such as '{next(iter(queries), '')}' "
                f"and '{next(iter(documents), '')}'"
            )
        raise SelfposError(f"{where} has no judgements{found}")
    return Beir(documents, queries, relevant, left_out)


def beir_files(folder: Path, split: str) -> dict[str, Path | None]:
    """The three files of a BEIR folder by what they are called, None for one that is not there."""
    judged = folder / "qrels"
    names = [split, *(["dev"] if split == "validation" else ["validation"] if split == "dev" else [])]
    found = [
        find(place, name, (".tsv", ".txt", *ENDINGS))
        for name in names
        for place in (judged, folder / "default")
    ]
    found += [_only(folder, name) for name in names]
    return {
        "corpus.jsonl[.gz]": find(folder, "corpus") or _only(folder / "corpus", "corpus"),
        "queries.jsonl[.gz]": find(folder, "queries") or _only(folder / "queries", "queries"),
        f"qrels/{split}.tsv": next((file for file in found if file is not None), None),
    }


def _only(folder: Path, split: str) -> Path | None:
    """The file of a part that the Hub keeps in a folder of its own."""
    found = split_files(folder, split) if folder.is_dir() else None
    return found.files[0] if found and len(found.files) == 1 else None


def document_text(document: dict[str, str]) -> str:
    """Title and text as one, as MTEB joins them."""
    return f"{document.get('title') or ''} {document['text']}".strip()


def _id(row: dict[str, Any], file: Path) -> str:
    name = next((name for name in IDS if name in row), None)
    if name is None:
        raise SelfposError(f"{file}: a record has no field '_id'; found {', '.join(row)}")
    return str(row[name])


def _judgements(file: Path) -> Iterator[tuple[str, str, int]]:
    """Query, document and grade of each line."""
    if kind_of(file) not in ("", ".tsv", ".csv"):
        for number, row in enumerate(iter_records(file), start=1):
            yield _judgement(
                [row.get(_named(row, names, file)) for names in (QUERY, DOCUMENT, GRADE)], file, number
            )
        return
    places: list[int] | None = None
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        cells = _cells(line, file)
        if not cells:
            continue
        if places is None:
            named = cells[-1].lower() in GRADE or not _is_number(cells[-1])
            places = [0, 2, 3] if len(cells) == 4 else [0, 1, 2]
            if named:
                places = [cells.index(_named(cells, names, file)) for names in (QUERY, DOCUMENT, GRADE)]
                continue
        yield _judgement(
            [cells[place] if place < len(cells) else None for place in places], file, number, line
        )


def _cells(line: str, file: Path) -> list[str]:
    separator = "\t" if "\t" in line else "," if kind_of(file) == ".csv" else None
    return [cell.strip() for cell in line.split(separator)] if line.strip() else []


def _named(present: Iterable[str], names: tuple[str, ...], file: Path) -> str:
    """The one of `present` that is among `names`, in any case."""
    found = next((name for known in names for name in present if name.lower() == known), None)
    if found is None:
        raise SelfposError(
            f"{file} has no column {names[0]} (or {', '.join(names[1:])}); found {', '.join(present)}"
        )
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _judgement(cells: list[Any], file: Path, number: int, line: str = "") -> tuple[str, str, int]:
    query, document, grade = cells
    try:
        value = float(grade)
        if value.is_integer() and None not in cells:
            return str(query), str(document), int(value)
    except (TypeError, ValueError):
        pass
    raise SelfposError(
        f"{file}, line {number}: expected query-id, corpus-id and a whole score between tabs, found "
        f"{line or cells!r}"
    )
