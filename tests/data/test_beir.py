"""Retrieval sets that contradict themselves are refused; damaged and strange files are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from selfpos.data.beir import beir_files, read_beir
from selfpos.data.sources import load_source
from selfpos.errors import SelfposError
from selfpos.evaluation.local_data import read_split
from selfpos.tasks import get_task
from tests.helpers.files import write_lines

DOCUMENTS = [{"_id": "d1", "title": "T", "text": "a"}, {"_id": "d2", "text": None}]
QUERIES = [{"_id": "q1", "text": "x"}, {"_id": "q2", "text": " "}]


def made(folder: Path, qrels: str, documents: Any = DOCUMENTS, queries: Any = QUERIES) -> Path:
    write_lines(folder / "corpus.jsonl", documents)
    write_lines(folder / "queries.jsonl", queries)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_missing_texts_are_empty_and_repeats_are_one(tmp_path: Path) -> None:
    folder = made(tmp_path, "q1\td1\t1\nq1\td1\t1.0\nq1\td2\t0\n", [*DOCUMENTS, DOCUMENTS[0]])
    found = read_beir(folder, beir_files(folder, "test"))
    assert found.documents == {"d1": {"title": "T", "text": "a"}, "d2": {"title": "", "text": ""}}
    assert found.relevant == {"q1": {"d1": 1, "d2": 0}} and not found.remark


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"_id": None, "text": "a"}, "corpus.jsonl, record 3: expected an id and texts, found None"),
        ({"_id": "", "text": "a"}, "record 3: expected an id and texts, found ''"),
        ({"_id": "d3", "text": ["x"]}, r"record 3: expected an id and texts, found 'd3' and .*\['x'\]"),
        ({"_id": "d3", "text": "x", "title": ["t"]}, "record 3: expected an id and texts"),
        ({"_id": "d1", "title": "T", "text": "b"}, "corpus.jsonl gives the id 'd1' to two texts"),
        ({"_id": "d1", "title": "S", "text": "a"}, "corpus.jsonl gives the id 'd1' to two texts"),
    ],
)
def test_documents_that_do_not_fit_are_named(tmp_path: Path, record: Any, message: str) -> None:
    folder = made(tmp_path, "q1\td1\t1\n", [*DOCUMENTS, record])
    with pytest.raises(SelfposError, match=message):
        read_split("retrieval", folder, "test")


def test_a_pair_with_two_grades_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path, "q1\td1\t1\nq1\td1\t0\n")
    with pytest.raises(SelfposError, match="judges document 'd1' for query 'q1' twice, as 1 and as 0"):
        read_split("retrieval", folder, "test")


def test_a_blank_query_is_not_scored(tmp_path: Path) -> None:
    folder = made(tmp_path, "q1\td1\t1\n")
    assert read_split("retrieval", folder, "test")[0].relevant == {"q1": {"d1": 1}}
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\nq2\td1\t1\n")
    with pytest.raises(SelfposError, match="of 2 queries 1 with a blank text; fill them in, or remove"):
        read_split("retrieval", folder, "test")


def test_judgements_are_read_within_the_same_bounds_as_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SelfposError, match=r"test.tsv is a pointer of Git LFS"):
        read_split("retrieval", folder, "test")
    monkeypatch.setattr("selfpos.data.files.MOST_LINE", 100)
    (folder / "qrels" / "test.tsv").write_text(f"q1\td1\t{'1' * 200}\n")
    with pytest.raises(SelfposError, match=r"test.tsv, line 1 has more than 100 characters"):
        read_split("retrieval", folder, "test")


@pytest.mark.parametrize("line", ["q1\td1", "q1"])
def test_a_line_with_too_few_cells_is_named(tmp_path: Path, line: str) -> None:
    folder = made(tmp_path, f"query-id\tcorpus-id\tscore\nq1\td1\t1\n{line}\n")
    with pytest.raises(SelfposError, match=r"test.tsv, line 3: expected query-id, corpus-id and a whole"):
        read_split("retrieval", folder, "test")


def test_names_of_files_in_capitals(tmp_path: Path) -> None:
    folder = made(tmp_path, "q1\td1\t1\n")
    (folder / "corpus.jsonl").rename(folder / "corpus.JSONL")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "test.TSV")
    assert read_split("retrieval", folder, "test")[0].relevant == {"q1": {"d1": 1}}


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.tsv.gz", "a.json.gz"])
def test_a_flipped_byte_in_a_gzip_is_named(tmp_path: Path, name: str) -> None:
    rows = [{"sentence1": f"a {n * n}", "sentence2": f"b {n}", "score": n} for n in range(3000)]
    from selfpos.data.files import read_records

    text = "".join(json.dumps(row) + "\n" for row in rows)
    if "json" not in name:
        mark = "," if "csv" in name else "\t"
        text = "\n".join(mark.join(map(str, cells)) for cells in [rows[0], *(row.values() for row in rows)])
    content = bytearray(gzip.compress(text.encode(), mtime=0))
    refused = 0
    for place in range(40, len(content), len(content) // 23):
        content[place] ^= 0xFF
        (tmp_path / name).write_bytes(content)
        try:
            read_records(tmp_path / name)
        except SelfposError as error:
            refused += name in str(error)
        content[place] ^= 0xFF
    assert refused >= 23


@pytest.mark.parametrize(
    "names",
    [("query-id", "corpus-id", "score"), ("query_id", "doc_id", "relevance"), ("qid", "docid", "label")],
)
def test_hub_set_in_the_beir_layout(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tables: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": "d", "title": "A", "text": "b"}],
        "queries": [{"_id": "q", "text": "what?"}],
        "default": [dict(zip(names, ("q", "d", 1), strict=True))],
    }
    splits = {"corpus": "corpus", "queries": "queries", "default": "train"}

    def load(name: str, config: str, *, split: str, revision: str | None) -> datasets.Dataset:
        assert split == splits[config]
        return datasets.Dataset.from_list(tables[config])

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, revision: list(tables))
    assert load_source("hub:mteb/scifact", get_task("retrieval")).dataset.to_list() == [
        {"anchor": "what?", "positive": "A b"}
    ]
    tables["default"].append({names[0]: "q", names[1]: "d", names[2]: 0.5})
    with pytest.raises(SelfposError, match=r"mteb/scifact, record 2: expected .* found 'q', 'd', 0\.5"):
        load_source("hub:mteb/scifact", get_task("retrieval"))
    tables["default"] = [{names[0]: "q", "document": "d", names[2]: 1}]
    with pytest.raises(SelfposError, match=r"mteb/scifact has no column corpus-id .*; found .*, document,"):
        load_source("hub:mteb/scifact", get_task("retrieval"))
