"""Silently wrong readings that others' files invite: quotes, labels, negatives, broken characters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from selfpos.data import columnar, files
from selfpos.data.sources import load_source
from selfpos.data.tables import aligned
from selfpos.errors import SelfposError
from selfpos.tasks import get_task
from tests.helpers.files import write_lines

STS, RETRIEVAL = get_task("sts"), get_task("retrieval")


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "cell", ['"Yes', 'he said "no"', '"', '""', '"a" b', "it's", "a\\tb", "1,5", "NA", "x\ry", "7"]
)
def test_a_tsv_has_no_quoting(tmp_path: Path, cell: str, ends: str) -> None:
    rows = [
        ("score", "sentence1", "sentence2"),
        *((str(n), cell if n % 2 else f"t {n}", f"u {n}") for n in range(6)),
    ]
    file = tmp_path / "a.tsv"
    file.write_bytes("".join("\t".join(row) + ends for row in rows).encode())
    for streaming in (False, True):
        found = load_source(str(file), STS, streaming=streaming)
        assert found.dataset["sentence1"][:] == [row[1] for row in rows[1:]]
        assert found.dataset["score"][:] == list(range(6))


def test_a_tsv_with_more_cells_than_names_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\na\tb\tc\t1\n")
    with pytest.raises(SelfposError, match=r"line 3 has 4 cells, and the first line names 3 columns"):
        load_source(str(tmp_path / "a.tsv"), STS)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("streaming", [False, True])
def test_names_of_labels_in_a_file_are_kept(tmp_path: Path, ending: str, streaming: bool) -> None:
    rows = [{"question": f"q {n}", "sentence": f"s {n}", "label": n % 2, "idx": n} for n in range(6)]
    data = datasets.Dataset.from_list(rows).cast_column(
        "label", datasets.ClassLabel(names=["entailment", "not_entailment"])
    )
    if ending == "parquet":
        data.to_parquet(tmp_path / "a.parquet")
        place = tmp_path / "a.parquet"
    else:
        datasets.DatasetDict(train=data).save_to_disk(tmp_path / "saved")
        place = tmp_path / "saved"
    found = load_source(str(place), get_task("pair-classification"), streaming=streaming)
    assert found.dataset["label"][:] == [1, 0] * 3
    assert "columns not used: idx" in found.description


def test_names_of_labels_in_the_readme_are_kept(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
        "          '0': entailment\n          '1': not_entailment\n---\n# RTE\n"
    )
    rows = [{"sentence1": f"q {n}", "sentence2": f"s {n}", "label": n % 2} for n in range(4)]
    write_lines(tmp_path / "train.jsonl", rows)
    for streaming in (False, True):
        found = load_source(str(tmp_path), get_task("pair-classification"), streaming=streaming)
        assert found.dataset["label"][:] == [1, 0, 1, 0]


def test_classes_of_two_files_are_joined_by_name(tmp_path: Path) -> None:
    for name, order in (("a", ["bad", "good"]), ("b", ["good", "bad"])):
        data = datasets.Dataset.from_dict({"text": [f"{name} 0", f"{name} 1"], "label": [0, 1]})
        data.cast_column("label", datasets.ClassLabel(names=order)).to_parquet(tmp_path / f"{name}.parquet")
    found = load_source(
        [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")], get_task("classification")
    )
    assert found.dataset["label"][:] == ["bad", "good", "good", "bad"]


@pytest.mark.parametrize("named", ["rte", "rte/train.jsonl", "train.jsonl", "data/train.jsonl"])
def test_names_of_labels_are_those_of_the_readme_beside_or_above(tmp_path: Path, named: str) -> None:
    features = (
        "  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
        "          '0': entailment\n          '1': not_entailment\n"
    )
    entry = "- config_name: rte\n" + features
    other = "- config_name: other\n" if named.startswith("rte") else ""
    (tmp_path / "README.md").write_text(f"---\ndataset_info:\n{other}{entry}---\n")
    place = tmp_path / named
    file = place if place.suffix else place / "train.jsonl"
    write_lines(file, [{"sentence1": f"q {n}", "sentence2": f"s {n}", "label": n % 2} for n in range(4)])
    for streaming in (False, True):
        found = load_source(str(place), get_task("pair-classification"), streaming=streaming)
        assert found.dataset["label"][:] == [1, 0, 1, 0]


@pytest.mark.parametrize("nothing", [None, []])
def test_a_stream_knows_what_a_column_holds_that_begins_empty(tmp_path: Path, nothing: Any) -> None:
    rows: list[dict[str, Any]] = [{"query": f"q{n}", "pos": [f"p{n}"], "neg": nothing} for n in range(1200)]
    file = str(write_lines(tmp_path / "a.jsonl", [*rows, {"query": "q", "pos": ["p"], "neg": ["n"]}]))
    found = load_source(file, RETRIEVAL, streaming=True)
    assert found.dataset["negative"][-1] == ["n"] and len(found.dataset) == 1201


def test_a_field_that_a_stream_would_miss_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"query": f"q{n}", "pos": [f"p{n}"]} for n in range(1200)]
    file = str(write_lines(tmp_path / "a.jsonl", [*rows, {"query": "q", "pos": ["p"], "neg": ["n"]}]))
    assert "negative" in load_source(file, RETRIEVAL).dataset.column_names
    with pytest.raises(SelfposError, match="'neg' is in none of the first 1,000 records"):
        load_source(file, RETRIEVAL, streaming=True)


def test_a_late_field_that_nobody_needs_is_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = [{"query": f"q{n}", "pos": [f"p{n}"]} for n in range(1200)]
    late = [{"query": f"r{n}", "pos": ["p"], "note": "x"} for n in range(100)]
    file = str(write_lines(tmp_path / "a.jsonl", rows + late))
    asked: list[Any] = []
    uses = type(RETRIEVAL).uses
    monkeypatch.setattr(
        type(RETRIEVAL),
        "uses",
        lambda self, present, given: asked.append(present) or uses(self, present, given),
    )
    assert len(load_source(file, RETRIEVAL, streaming=True).dataset) == 1300 and len(asked) == 2


def test_sets_with_other_kinds_of_a_column_are_joined(tmp_path: Path) -> None:
    table, listed = tmp_path / "a.csv", tmp_path / "b.jsonl"
    table.write_text("text,label\na,0\nb,1\n")
    write_lines(listed, [{"text": "c", "label": 0}, {"text": "d", "label": 1}])
    both = load_source([str(table), str(listed)], get_task("classification"))
    assert both.dataset["label"][:] == ["0", "1", "0", "1"]
    table.write_text("query,positive,negative\nq,p,n\n")
    write_lines(listed, [{"query": "r", "pos": ["s", "t"], "neg": ["m"]}])
    prepared = RETRIEVAL.prepare(load_source([str(table), str(listed)], RETRIEVAL).dataset, 0)
    assert prepared["positive"][:] == ["p", "s", "t"] and prepared["negative"][:] == ["n", "m", "m"]


def test_a_column_that_one_of_several_sets_lacks_is_named(tmp_path: Path) -> None:
    one = write_lines(tmp_path / "a.jsonl", [{"query": "q", "pos": ["p"], "neg": ["n"]}])
    other = write_lines(tmp_path / "b.jsonl", [{"query": "r", "pos": ["s"]}])
    found = load_source([str(one), str(other)], RETRIEVAL)
    assert "not used, since not all of the data have it: negative" in found.description


def test_sets_whose_labels_do_not_fit_are_named(tmp_path: Path) -> None:
    words = write_lines(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    points = write_lines(tmp_path / "b.jsonl", [{"text": "c", "label": 0.5}, {"text": "d", "label": 1.5}])
    with pytest.raises(SelfposError, match=r"b.jsonl' has numbers in 'label', where others have text"):
        load_source([str(words), str(points)], get_task("classification"))


def test_json_lines_called_json_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_JSON", 1_000)
    rows = [{"text": f"t {n}", "label": n} for n in range(200)]
    file = write_lines(tmp_path / "a.json", rows)
    assert files.read_records(file) == rows
    file.write_text("\n".join(json.dumps(["q", f"a {n}"]) for n in range(200)))
    assert len(files.read_records(file)) == 200
    for indent in (None, 1):
        file.write_text(json.dumps({"rows": rows}, indent=indent))
        with pytest.raises(SelfposError, match="more than 1,000 characters in one JSON value"):
            files.read_records(file)


@pytest.mark.parametrize("stream", [False, True])
def test_an_arrow_file_is_read_part_by_part(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar, "ROWS", 3)
    batches = pa.table({"a": range(10), "b": range(10)}).to_batches(max_chunksize=5)
    made = pa.ipc.new_stream if stream else pa.ipc.new_file
    with made(tmp_path / "a.arrow", batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    parts = columnar.batches(tmp_path / "a.arrow", ["a"], parquet=False)[1]
    assert [part.to_pydict() for part in parts] == [
        {"a": one} for one in ([0, 1, 2], [3, 4], [5, 6, 7], [8, 9])
    ]
    assert files.read_records(tmp_path / "a.arrow") == [{"a": n, "b": n} for n in range(10)]


def saved(folder: Path, values: list[Any], kind: Any) -> str:
    """Labels of one kind, as `datasets` saves them."""
    texts = [f"{folder.name} {number}" for number in range(len(values))]
    features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    datasets.Dataset.from_dict({"text": texts, "label": values}, features=features).save_to_disk(folder)
    return str(folder)


WHOLE = datasets.Value("int64")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (([0, 1], datasets.Value("int32")), ([1, 0], WHOLE), [0, 1, 1, 0]),
        (([0, 1], datasets.Value("uint8")), ([1, 0], datasets.Value("int16")), [0, 1, 1, 0]),
        ((["0", "x"], datasets.Value("large_string")), ([1, 0], WHOLE), ["0", "x", "1", "0"]),
        (
            ([0, 1], datasets.ClassLabel(names=["a", "b"])),
            (["b", "c"], datasets.Value("string")),
            list("abbc"),
        ),
        (
            ([0, 1], datasets.ClassLabel(names=["a", "b"])),
            ([0, 1], datasets.ClassLabel(names=["b", "c"])),
            list("abbc"),
        ),
    ],
)
def test_labels_of_other_widths_and_names_are_joined(
    one: tuple[list[Any], Any], other: tuple[list[Any], Any], expected: list[Any], tmp_path: Path
) -> None:
    places = [saved(tmp_path / name, *given) for name, given in (("one", one), ("other", other))]
    found = load_source(places, get_task("classification")).dataset["label"][:]
    assert found == expected and [type(label) for label in found] == [type(label) for label in expected]


def test_lists_are_joined_with_lists_of_the_same() -> None:
    def part(values: list[Any], kind: Any) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"a": values}, features=datasets.Features({"a": kind}))

    lists = datasets.List
    numbers = [
        part([[1]], lists(datasets.Value("int32"))),
        part([[2], None], lists(WHOLE)),
        part([[]], lists(datasets.Value("null"))),
    ]
    joined = datasets.concatenate_datasets(aligned(numbers, ["x", "y", "z"]))
    assert joined["a"][:] == [[1], [2], None, []]
    words = {"lists": [[1]], "truth values": [True], "whole numbers": [1], "numbers": [0.5], "text": ["t"]}
    for one, other in (
        ("lists", "whole numbers"),
        ("lists", "truth values"),
        ("whole numbers", "truth values"),
        ("truth values", "numbers"),
        ("text", "numbers"),
        ("text", "truth values"),
    ):
        parts = [datasets.Dataset.from_dict({"a": words[word]}) for word in (one, other)]
        with pytest.raises(SelfposError, match=f"data 'y' has {other} in 'a', where others have {one}; give"):
            aligned(parts, ["x", "y"])


def test_a_label_that_is_no_number_is_no_class(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"text": "{n}", "label": {value}}}\n' for n, value in enumerate("01")))
    file.write_text(file.read_text() + '{"text": "x", "label": NaN}\n')
    assert load_source(str(file), get_task("classification")).dataset["text"][:] == ["0", "1"]


@pytest.mark.parametrize("negatives", [["n", ""], ["n", None], ["n", "  "]])
def test_a_blank_negative_costs_itself(tmp_path: Path, negatives: list[str | None]) -> None:
    rows = [
        {"query": "q0", "pos": ["p0"], "neg": negatives},
        {"query": "q1", "pos": ["p1"], "neg": []},
        {"query": "q2", "pos": ["p2"], "neg": None},
        {"query": "q3", "pos": ["p3"], "neg": [""]},
        {"query": "q4", "pos": ["p4"]},
    ]
    found = load_source(str(write_lines(tmp_path / "a.jsonl", rows)), RETRIEVAL)
    assert not found.dropped and len(found.dataset) == 5
    prepared = RETRIEVAL.prepare(found.dataset, 0)
    assert prepared["negative"][:] == ["n"] * 5 and prepared["anchor"][:] == [f"q{n}" for n in range(5)]


def test_numbered_negatives_may_lack_some(tmp_path: Path) -> None:
    rows = [
        {"anchor": "q0", "positive": "p0", "negative_1": "a0", "negative_2": ""},
        {"anchor": "q1", "positive": "p1", "negative_1": None, "negative_2": "b1"},
        {"anchor": "q2", "positive": "p2", "negative_1": "a2", "negative_2": "b2"},
    ]
    found = load_source(str(write_lines(tmp_path / "a.jsonl", rows)), RETRIEVAL)
    prepared = RETRIEVAL.prepare(found.dataset, 0).to_list()
    assert len(prepared) == 3 and all(all(record.values()) for record in prepared)
    assert prepared[0]["negative_2"] in ("b1", "b2") and prepared[1]["negative"] in ("a0", "a2")


def test_half_a_surrogate_pair_is_a_replacement_character(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        '{"sentence1": "x \\ud83d", "sentence2": "\\ud83d\\ude00", "score": 1}\n'
        '{"sentence1": "y", "sentence2": "\\uDC00 z", "score": 2}\n'
    )
    for streaming in (False, True):
        found = load_source(str(file), STS, streaming=streaming).dataset.to_list()
        assert [record["sentence1"] for record in found] == ["x \ufffd", "y"]
        assert [record["sentence2"] for record in found] == ["\U0001f600", "\ufffd z"]


def test_mixed_kinds_matter_only_in_columns_that_are_needed(tmp_path: Path) -> None:
    rows = [
        {"sentence1": f"a {n}", "sentence2": f"b {n}", "score": n, "id": [n] if n else "none"}
        for n in range(3)
    ]
    file = str(write_lines(tmp_path / "a.jsonl", rows))
    assert "columns not used: id" in load_source(file, STS).description
    with pytest.raises(SelfposError, match="the field 'id' holds values of different kinds"):
        load_source(file, STS, columns={"sentence1": "id"})


QRELS = {
    "with a first line": "query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t1\n",
    "without one": "q0\td0\t1\nq1\td1\t1\n",
    "TREC, tabs": "q0\t0\td0\t1\nq1\t0\td1\t1\n",
    "TREC, spaces": "q0 0 d0 1\nq1 Q0 d1 1\n",
    "TREC with names": "qid\titer\tdocid\trel\nq0\t0\td0\t1\nq1\t0\td1\t1\n",
    "decimal grades": "query-id\tcorpus-id\tscore\nq0\td0\t1.0\nq1\td1\t1.0\nq1\td0\t0.0\n",
    "empty last lines": "q0\td0\t1\nq1\td1\t1\n\n\n",
    "Windows": "query-id\tcorpus-id\tscore\r\nq0\td0\t1\r\nq1\td1\t1\r\n",
    "columns turned": "corpus-id\tquery-id\tscore\nd0\tq0\t1\nd1\tq1\t1\n",
    "a byte order mark": "\ufeffquery-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t1\n",
    "negative grades": "q0\td0\t1\nq0\td1\t-2\nq1\td1\t2\n",
}


@pytest.mark.parametrize("form", QRELS)
def test_judgements_in_every_form(tmp_path: Path, form: str) -> None:
    write_lines(
        tmp_path / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"doc {n}"} for n in range(2)]
    )
    write_lines(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": f"query {n}"} for n in range(2)])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_bytes(QRELS[form].encode())
    assert load_source(str(tmp_path), RETRIEVAL).dataset.to_list() == [
        {"anchor": f"query {n}", "positive": f"doc {n}"} for n in range(2)
    ]


@pytest.mark.parametrize("grade", ["0.5", "high", ""])
def test_a_grade_that_is_no_whole_number_is_refused_by_line(tmp_path: Path, grade: str) -> None:
    write_lines(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "doc"}])
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "query"}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\nq\td\t1\nq\td\t{grade}\n")
    with pytest.raises(
        SelfposError, match=r"train.tsv, line 3: expected query-id, corpus-id and a whole score"
    ):
        load_source(str(tmp_path), RETRIEVAL)


def test_a_pointer_of_git_lfs_is_named_as_such(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("a.jsonl", "a.parquet", "a.csv.gz", "a.tsv", "a.json"):
        (tmp_path / name).write_bytes(pointer)
        with pytest.raises(
            SelfposError, match="is a pointer of Git LFS, not the data; fetch that with `git lfs"
        ):
            load_source(str(tmp_path / name), STS)


def test_a_missing_part_of_a_split_is_named(tmp_path: Path) -> None:
    for part in (0, 2):
        write_lines(
            tmp_path / "data" / f"train-{part:05d}-of-00003.jsonl", [{"question": "q", "answer": "a"}]
        )
    with pytest.raises(SelfposError, match="has 2 of the 3 parts of train: part 00001 is missing"):
        load_source(str(tmp_path), RETRIEVAL)


def test_json_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    for content, message in (
        ('{"a": {"b": 1}}', "must hold a list of JSON objects"),
        ('[{"a": 1},]', r"is not JSON: .* \(line 1, column"),
        (json.dumps({"version": "1", "data": []}), "has no records"),
    ):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(SelfposError, match=message):
            load_source(str(tmp_path / "a.json"), STS)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_another_encoding_is_named_as_such(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("sentence1,sentence2,score\ncafé,b,1\n".encode("latin-1"))
    with pytest.raises(SelfposError, match=r"is not UTF-8 \(.*\); save it as UTF-8"):
        load_source(str(tmp_path / name), STS)
