"""Retrieval sets in the BEIR layout: documents, queries, and judgements of which documents answer which
query.

Judgements are a table of query, document and grade: BEIR's with a first line of names, the same without one,
TREC's four columns, JSON Lines or Parquet. Grades are whole numbers, also written as 1.0; above 0 is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from selfpos.data.files import ENDINGS, find, iter_records, kind_of, lines_of
from selfpos.data.folders import split_files
from selfpos.errors import SelfposError

IDS = ("_id", "id", "docid", "doc_id", "query_id", "qid")
TEXTS = ("text", "contents", "content", "passage", "body")
QUESTIONS = ("text", "query", "question")
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
    missing = [expected for expected, files in parts.items() if not files]
    if missing:
        raise SelfposError(f"{folder} lacks {', '.join(missing)}")
    corpus, questions, judged = parts.values()
    documents = {
        key: {"title": str(row.get("title") or ""), "text": text} for key, text, row in _texts(corpus, TEXTS)
    }
    queries = {key: text for key, text, _ in _texts(questions, QUESTIONS)}
    judgements = chain.from_iterable(map(_judgements, judged))
    return joined(documents, queries, judgements, str(judged[0]))


def _texts(files: Iterable[Path], names: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, text and the record itself of each record."""
    for file in files:
        for row in iter_records(file):
            key, text = (row[_named(row, known, file)] for known in (IDS, names))
            yield str(key), str(text or ""), row


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


def beir_files(folder: Path, split: str) -> dict[str, list[Path]]:
    """The files of the three parts of a BEIR folder by what they are called; none of one that is not there.

    The Hub keeps each part in a folder of its own, often as several files.
    """
    judged = folder / "qrels"
    names = [split, *(["dev"] if split == "validation" else ["validation"] if split == "dev" else [])]
    found = [
        find(place, name, (".tsv", ".txt", *ENDINGS))
        for name in names
        for place in (judged, folder / "default")
    ]
    judgements = next(([file] for file in found if file is not None), None)
    return {
        "corpus.jsonl[.gz]": _part(folder, "corpus", split),
        "queries.jsonl[.gz]": _part(folder, "queries", split),
        f"qrels/{split}.tsv": judgements or _first([judged, folder], split),
    }


def _part(folder: Path, name: str, split: str) -> list[Path]:
    file = find(folder, name)
    places = [folder / name]
    return [file] if file else _first(places, name) or _first(places, split)


def _first(folders: Iterable[Path], split: str) -> list[Path]:
    """The files of `split` in the first of the folders that has some."""
    found = (split_files(folder, split) for folder in folders if folder.is_dir())
    return next((split_of.files for split_of in found if split_of), [])


def document_text(document: dict[str, str]) -> str:
    """Title and text as one, as MTEB joins them."""
    return f"{document.get('title') or ''} {document['text']}".strip()


def _judgements(file: Path) -> Iterator[tuple[str, str, int]]:
    """Query, document and grade of each line."""
    if kind_of(file) not in ("", ".tsv"):
        for number, row in enumerate(iter_records(file), start=1):
            yield judgement(
                [row.get(_named(row, names, file)) for names in (QUERY, DOCUMENT, GRADE)],
                f"{file}, record {number}",
            )
        return
    places: list[int] | None = None
    for number, line in enumerate(lines_of(file), start=1):
        cells = [cell.strip() for cell in line.split("\t" if "\t" in line else None)]
        if not any(cells):
            continue
        if places is None:
            named = cells[-1].lower() in GRADE or not _is_number(cells[-1])
            places = [0, 2, 3] if len(cells) == 4 else [0, 1, 2]
            if named:
                places = [cells.index(_named(cells, names, file)) for names in (QUERY, DOCUMENT, GRADE)]
                continue
        yield judgement(
            [cells[place] if place < len(cells) else None for place in places], f"{file}, line {number}"
        )


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


def judgement(cells: Iterable[Any], where: str) -> tuple[str, str, int]:
    """Query, document and grade as such. Raises SelfposError where they are not."""
    query, document, grade = cells
    if None not in (query, document) and _is_number(str(grade)) and float(grade).is_integer():
        return str(query), str(document), int(float(grade))
    raise SelfposError(
        f"{where}: expected query-id, corpus-id and a whole score between tabs, found "
        f"{query!r}, {document!r}, {grade!r}"
    )
