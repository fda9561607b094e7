"""Texts without labels, from the files that people have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from selfpos.data.corpus import load_corpus
from selfpos.data.sources import load_source
from selfpos.data.texts import read_texts
from selfpos.errors import SelfposError
from selfpos.tasks import get_task

WORDS = [f"text number {number} about things" for number in range(40)]


def write(file: Path, content: str, encoding: str = "utf-8") -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding=encoding)
    return str(file)


def lines(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_text_file_holds_one_text_a_line(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "\n".join([*WORDS, "", "  ", WORDS[0]]), "utf-8-sig")
    read = read_texts(source)
    assert read.texts == WORDS
    assert read.description == f"40 texts of {source} (left out: 2 blank, 1 repeated)"


def test_windows_line_ends_are_no_part_of_a_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\r\n".join(WORDS).encode())
    assert read_texts(str(file)).texts == WORDS


def test_records_give_the_column_text_or_those_that_tasks_know(tmp_path: Path) -> None:
    texts = write(tmp_path / "a.jsonl", lines([{"text": text, "label": "x", "id": "y"} for text in WORDS]))
    assert read_texts(texts).texts == WORDS
    pairs = write(
        tmp_path / "b.jsonl", lines([{"query": f"q {t}", "positive": [t], "id": "1"} for t in WORDS])
    )
    assert set(read_texts(pairs).texts) == {*WORDS, *(f"q {text}" for text in WORDS)}
    table = write(tmp_path / "c.csv", "id,Abstract\n" + "".join(f'{n},"{t}"\n' for n, t in enumerate(WORDS)))
    assert read_texts(table).texts == WORDS
    packed = tmp_path / "d.jsonl.gz"
    packed.write_bytes(gzip.compress(lines([{"note": text} for text in WORDS]).encode()))
    assert read_texts(str(packed)).texts == WORDS, "the only text there is"


def test_only_a_line_end_ends_a_text(tmp_path: Path) -> None:
    """Others, as Unicode's and a form feed, stand within texts."""
    texts = [f"{text}\u2028and\x85on\x0cand on" for text in WORDS]
    read = read_texts(write(tmp_path / "a.txt", "\n".join(texts) + "\n"))
    assert read.texts == [f"{text} and on and on" for text in WORDS]
    assert read.description.endswith("a.txt")


def test_a_compressed_text_file_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n".join(WORDS).encode()))
    assert read_texts(str(tmp_path / "a.txt.gz")).texts == WORDS
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md.gz").write_bytes(gzip.compress("\n\n".join(WORDS).encode()))
    assert read_texts(str(tmp_path / "docs")).texts == WORDS


@pytest.mark.parametrize("first", [{"query": "q", "positive": None}, {"query": "q"}])
def test_what_the_first_record_lacks_is_taken_of_the_others(tmp_path: Path, first: dict) -> None:
    rows = [first, *({"query": f"q {text}", "positive": text} for text in WORDS)]
    read = read_texts(write(tmp_path / "a.jsonl", lines(rows)))
    assert read.texts == ["q", *(words for text in WORDS for words in (f"q {text}", text))]
    assert read.description.endswith("a.jsonl (query and positive) (left out: 1 blank)")


@pytest.mark.parametrize("splits", [False, True])
def test_a_data_set_saved_to_disk_gives_its_records(tmp_path: Path, splits: bool) -> None:
    whole = Dataset.from_dict({"text": WORDS, "label": [1] * len(WORDS)})
    halves = {"train": whole.select(range(9)), "test": whole.select(range(9, 40))}
    (DatasetDict(halves) if splits else whole).save_to_disk(str(tmp_path / "set"))
    assert read_texts(str(tmp_path / "set")).texts == WORDS


@pytest.mark.parametrize("damage", ["gone", "cut", "without information"])
def test_a_damaged_data_set_saved_to_disk_is_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "set"
    Dataset.from_dict({"text": WORDS, "label": WORDS}).save_to_disk(str(folder))
    (part,) = folder.glob("*.arrow")
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:300])
    else:
        (part if damage == "gone" else folder / "dataset_info.json").unlink()
    for read in (read_texts, lambda source: load_source(source, get_task("classification"))):
        with pytest.raises(SelfposError, match=r"set cannot be read: "):
            read(str(folder))


def test_what_is_said_of_a_data_set_is_no_text_of_it(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    Dataset.from_dict({"text": WORDS}).to_parquet(str(tmp_path / "set" / "data" / "train-0.parquet"))
    for name in ("README.md", "LICENSE.txt"):
        write(tmp_path / "set" / name, "about it\n\nand more")
    write(tmp_path / "set" / "dataset_infos.json", json.dumps({"default": {"splits": {}}}))
    assert read_texts(str(tmp_path / "set")).texts == WORDS
    write(tmp_path / "docs" / "README.md", "\n\n".join(WORDS))
    assert read_texts(str(tmp_path / "docs")).texts == WORDS, "a document as others"


@pytest.mark.parametrize("mark", [";", "; with more; of them"])
def test_a_csv_of_one_column_has_no_separator(mark: str, tmp_path: Path) -> None:
    texts = [f"{text}{mark} and so on" for text in WORDS]
    assert read_texts(write(tmp_path / "a.csv", "\n".join(["text", *texts]))).texts == texts


def test_holes_in_a_column_are_no_texts(tmp_path: Path) -> None:
    records = [{"text": None}, *({"text": text} for text in WORDS), {"other": "x"}]
    assert read_texts(write(tmp_path / "a.jsonl", lines(records))).texts == WORDS


def test_a_document_of_a_title_alone_is_its_title(tmp_path: Path) -> None:
    records = [{"title": "T", "text": WORDS[0]}, {"title": "alone"}, *({"text": text} for text in WORDS[1:])]
    assert read_texts(write(tmp_path / "a.jsonl", lines(records))).texts == [
        f"T {WORDS[0]}",
        "alone",
        *WORDS[1:],
    ]


def test_a_folder_of_documents_gives_their_paragraphs(tmp_path: Path) -> None:
    for number in range(0, 40, 4):
        body = "\n\n".join(text.replace(" about", "\nabout") for text in WORDS[number : number + 4])
        write(tmp_path / "docs" / "deep" / f"{number:02d}.{'md' if number % 8 else 'txt'}", body)
    write(tmp_path / "docs" / ".git" / "x.txt", "hidden away")
    assert read_texts(str(tmp_path / "docs")).texts == WORDS


def test_a_beir_folder_gives_its_documents_with_titles(tmp_path: Path) -> None:
    corpus = [{"_id": str(n), "title": f"T{n}", "text": text} for n, text in enumerate(WORDS)]
    write(tmp_path / "set" / "corpus.jsonl", lines(corpus))
    write(tmp_path / "set" / "queries.jsonl", lines([{"_id": "1", "text": "a query"}]))
    assert read_texts(str(tmp_path / "set")).texts == [f"T{n} {text}" for n, text in enumerate(WORDS)]


def test_of_many_texts_some_are_drawn_with_the_seed(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "\n".join(f"{text} {n}" for n in range(9) for text in WORDS))
    first, again, other = (read_texts(source, seed=seed, most=100) for seed in (0, 0, 1))
    assert first == again
    assert first.texts != other.texts
    assert first.description == f"100 of 360 texts of {source}"


@pytest.mark.slow  # where the corpus is not cached yet
def test_the_corpus_is_named_for_what_it_is() -> None:
    read = read_texts("corpus", most=50)
    assert len(read.texts) == 50
    assert "docstrings of the Python packages on this machine" in read.description
    trained = {" ".join(f"{entry.summary} {entry.body}".split()) for entry in load_corpus().part("train")}
    assert trained.isdisjoint(read.texts), "what finetune trains on is not taken"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("few.txt", b"one\ntwo\n", "2 distinct texts, and 32 are needed"),
        ("none.txt", b"", "0 distinct texts"),
        ("latin.txt", "é\n".encode("latin-1"), "is not UTF-8 .*; save it as UTF-8"),
        ("a.jsonl", b'{"id": 1, "n": 2}\n', "no column 'text'; found id, n"),
        ("b.jsonl", b'{"a": "x", "b": "y"}\n', "no column 'text'; found a, b"),
        ("c.jsonl", b"{", "is not JSON"),
        ("d.docx", b"PK", "is no file of texts; expected one that ends in .txt"),
        (
            "e.jsonl",
            b'{"id": "x", "note": null}\n{"id": "y", "note": "z"}\n',
            "no column 'text'; found id, note",
        ),
        ("f.csv", b"id,note\n1,\n2,z\n", "no column 'text'; found id, note"),
        ("g.jsonl", b'{"text": 5}\n' * 40, r"0 distinct texts \(left out: 40 that are no text\)"),
    ],
)
def test_a_source_that_gives_no_texts_is_refused_in_a_sentence(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SelfposError, match=words):
        read_texts(str(tmp_path / name))


def test_a_model_an_empty_folder_and_nothing_are_no_texts(tmp_path: Path, tiny_base: Path) -> None:
    for source, words in (
        (tiny_base, "is a model"),
        (tmp_path, "has no file of texts"),
        (tmp_path / "x", "there is no file or folder"),
    ):
        with pytest.raises(SelfposError, match=words):
            read_texts(str(source))


def test_texts_that_others_have_are_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "\n".join([*WORDS, WORDS[0]]))
    read = read_texts(source, without={WORDS[0], WORDS[1], "elsewhere"}, fewest=2, most=3)
    assert len(read.texts) == 3
    assert read.source == frozenset(WORDS[2:])
    assert read.description.endswith("(left out: 3 of others)")


def test_a_split_without_records_does_not_keep_the_others(tmp_path: Path) -> None:
    whole = Dataset.from_dict({"text": WORDS, "label": [1] * len(WORDS)})
    DatasetDict({"train": whole, "test": whole.select([])}).save_to_disk(str(tmp_path / "set"))
    assert read_texts(str(tmp_path / "set")).texts == WORDS


def test_what_is_about_a_data_set_is_none_of_its_texts(tmp_path: Path) -> None:
    write(tmp_path / "license.jsonl", lines([{"text": text} for text in WORDS]))
    write(tmp_path / "a.jsonl", lines([{"text": f"a {text}"} for text in WORDS]))
    write(tmp_path / "README.md", "About this set")
    (tmp_path / "guide").mkdir()
    write(tmp_path / "guide" / "README.md", "How to begin")
    expected = {*WORDS, *(f"a {text}" for text in WORDS), "How to begin"}
    assert set(read_texts(str(tmp_path)).texts) == expected
