"""Retrieval sets in the BEIR layout: documents, queries, and judgements of which documents answer which
query.

Judgements are a table of query, document and grade: BEIR's with a first line of names, the same without one,
TREC's four columns, JSON Lines or Parquet. Grades are whole numbers, also written as 1.0; above 0 is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

from selfpos.data.files import ENDINGS, find, iter_records, kind_of, lines_of
from selfpos.data.folders import split_files
from selfpos.errors import SelfposError
from selfpos.tasks.forms import PASSAGE

IDS = ("_id", "id", "docid", "doc_id", "query_id", "qid")
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


def read_beir(folder: Path, parts: Mapping[str, list[Path]]) -> Beir:
    """The retrieval set in `folder`, of the files that `beir_files` found.

    Raises SelfposError for a missing file, a record that does not fit, or no judgement of what is there.
    """
    missing = [expected for expected, files in parts.items() if not files]
    if missing:
        raise SelfposError(f"{folder} lacks {', '.join(missing)}")
    corpus, questions, judged = parts.values()
    documents, queries = _of_files(corpus, PASSAGE), _of_files(questions, QUESTIONS)
    rows = (judgements(_rows(file), file) for file in judged)
    return joined(documents, queries, chain.from_iterable(rows), judged[0])


def _of_files(files: Sequence[Path], names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    where = files[0] if len(files) == 1 else files[0].parent
    return by_id(chain.from_iterable(map(iter_records, files)), names, where)


def by_id(
    records: Iterable[Mapping[str, Any]], names: tuple[str, ...], where: Path | str
) -> dict[str, dict[str, str]]:
    """Id → title and text of each record, the text under one of `names`; a missing one is empty.

    Raises SelfposError where an id is missing, a text is none, or an id has two texts.
    """
    texts_of: dict[str, dict[str, str]] = {}
    for number, record in enumerate(records, start=1):
        key, text = (record[_named(record, accepted, where)] for accepted in (IDS, names))
        fields = {"title": record.get("title"), "text": text}
        texts = {name: "" if value is None else value for name, value in fields.items()}
        known_id = isinstance(key, str | int | float) and key != ""
        if not known_id or not all(isinstance(value, str) for value in texts.values()):
            raise SelfposError(
                f"{where}, record {number}: expected an id and texts, found {key!r} and "
                f"{str([*texts.values()])[:200]}; give each record an id of its own and plain texts"
            )
        if texts_of.setdefault(str(key), texts) != texts:
            raise SelfposError(f"{where} gives the id '{key}' to two texts; keep one, or give it another id")
    return texts_of


def joined(
    documents: dict[str, dict[str, str]],
    queries: dict[str, dict[str, str]],
    judgements: Iterable[tuple[str, str, int]],
    where: Path | str,
) -> Beir:
    """The judgements of queries and documents that are there, counting the others.

    Raises SelfposError where there are none, or a pair has two grades.
    """
    relevant: dict[str, dict[str, int]] = {}
    left_out: Counter[str] = Counter()
    for query, document, grade in judgements:
        if query in queries and document in documents:
            if (first := relevant.setdefault(query, {}).setdefault(document, grade)) != grade:
                raise SelfposError(
                    f"{where} judges document '{document}' for query '{query}' twice, as {first} and as "
                    f"{grade}; keep one"
                )
        else:
            left_out["query" if query not in queries else "document"] += 1
    if not relevant:
        reason = ""
        if left_out:
            reason = (
                f" of a query and a document that are there; its ids are such as '{query}' and "
                f"'{document}', those of the queries and documents such as '{next(iter(queries), '')}' "
                f"and '{next(iter(documents), '')}'"
            )
        raise SelfposError(f"{where} has no judgements{reason}")
    return Beir(documents, {key: query["text"] for key, query in queries.items()}, relevant, left_out)


def of_pairs(records: Iterable[Mapping[str, Any]]) -> Beir:
    """The retrieval set of records of the task type retrieval: every positive and negative is a document, and
    right for the questions that it is a positive of.
    """
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for record in records:
        query = queries.setdefault(record["anchor"], f"q{len(queries)}")
        for column, value in record.items():
            if column == "positive" or column.startswith("negative"):
                for text in filter(None, value if isinstance(value, list) else [value]):
                    document = documents.setdefault(text, f"d{len(documents)}")
                    if column == "positive":
                        relevant.setdefault(query, {})[document] = 1
    texts = {key: {"title": "", "text": text} for text, key in documents.items()}
    return Beir(texts, {key: text for text, key in queries.items()}, relevant, Counter())


def beir_files(folder: Path, split: str) -> dict[str, list[Path]]:
    """The files of the three parts of a BEIR folder by what they are called; none of one that is not there.

    The Hub keeps each part in a folder of its own, often as several files.
    """
    judged = folder / "qrels"
    names = [split, *(["dev"] if split == "validation" else ["validation"] if split == "dev" else [])]
    files_of_judgements = [
        find(parent, name, (".tsv", ".txt", *ENDINGS))
        for name in names
        for parent in (judged, folder / "default")
    ]
    judgements = next(([file] for file in files_of_judgements if file is not None), None)
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
    splits = (split_files(folder, split) for folder in folders if folder.is_dir())
    return next((split_of.files for split_of in splits if split_of), [])


def numbered(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The place of each record, in words, and the record."""
    yield from ((f"record {number}", record) for number, record in enumerate(records, start=1))


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The place of each judgement in `file`, and its fields; those of lines have the names of the first line,
    or those that three columns, or TREC's four, have without one.
    """
    if kind_of(file) not in ("", ".tsv"):
        yield from numbered(iter_records(file))
        return
    names: list[str] = []
    for number, line in enumerate(lines_of(file), start=1):
        cells = [cell.strip() for cell in line.split("\t" if "\t" in line else None)]
        if not any(cells):
            continue
        if not names:
            named = cells[-1].lower() in GRADE or not _is_number(cells[-1])
            names = cells if named else [QUERY[0], *["iteration"][: len(cells) == 4], DOCUMENT[0], GRADE[0]]
            if named:
                continue
        yield f"line {number}", dict(zip(names, chain(cells, repeat(None)), strict=False))


def judgements(
    rows: Iterable[tuple[str, Mapping[str, Any]]], where: Path | str
) -> Iterator[tuple[str, str, int]]:
    """Query, document and grade of each row, which comes with its place in `where`.

    Raises SelfposError where a row lacks one of them, or the grade is no whole number.
    """
    for position, row in rows:
        cells = [row.get(_named(row, names, where)) for names in (QUERY, DOCUMENT, GRADE)]
        yield _judgement(cells, f"{where}, {position}")


def _named(present: Iterable[str], names: tuple[str, ...], where: Path | str) -> str:
    """The one of `present` that is among `names`, in any case."""
    column = next((name for wanted in names for name in present if name.lower() == wanted), None)
    if column is None:
        raise SelfposError(
            f"{where} has no column {names[0]} (or {', '.join(names[1:])}); found {', '.join(present)}"
        )
    return column


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _judgement(cells: Iterable[Any], where: str) -> tuple[str, str, int]:
    """Query, document and grade as such. Raises SelfposError where they are not."""
    query, document, grade = cells
    if None not in (query, document) and _is_number(str(grade)) and float(grade).is_integer():
        return str(query), str(document), int(float(grade))
    raise SelfposError(
        f"{where}: expected query-id, corpus-id and a whole score, found {query!r}, {document!r}, {grade!r}"
    )
