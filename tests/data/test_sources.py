from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from selfpos.data.sources import load_source, load_task
from selfpos.errors import OperationError, SelfposError
from selfpos.recipe import TaskSource
from selfpos.tasks import get_task
from tests.helpers.files import write_lines

PAIRS = [{"sentence1": f"one {i}", "sentence2": f"two {i}", "score": i / 2} for i in range(10)]
STS = get_task("sts")


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "beir"
    write_lines(
        folder / "corpus.jsonl.gz",
        [{"_id": f"d{i}", "title": "T" if i else "", "text": f"document {i}"} for i in range(3)],
    )
    write_lines(
        folder / "queries.jsonl", [{"_id": "q0", "text": "query 0"}, {"_id": "q1", "text": "query 1"}]
    )
    (folder / "qrels").mkdir()
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td1\t2\nq0\td2\t0\nq1\td2\t1\n"
    )
    return folder


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, name: str) -> None:
    import pandas as pd

    file, frame = tmp_path / name, pd.DataFrame(PAIRS)
    if "jsonl" in name:
        write_lines(file, PAIRS)
    elif name.endswith("json"):
        file.write_text(json.dumps(PAIRS))
    elif name.endswith("parquet"):
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep="\t" if name.endswith("tsv") else ",")
    found = load_source(str(file), STS)
    assert found.dataset.to_list() == PAIRS
    assert found.hash == load_source(str(write_lines(tmp_path / "again.jsonl", PAIRS)), STS).hash
    assert not found.dropped and found.description == f"{file}: 10 records"


def test_folder_with_splits_below_the_data_root(tmp_path: Path) -> None:
    write_lines(tmp_path / "set" / "train.jsonl.gz", PAIRS)
    write_lines(tmp_path / "set" / "test.jsonl", PAIRS[:4])
    assert len(load_source("set", STS, data_root=tmp_path).dataset) == 10
    assert len(load_source("set", STS, data_root=tmp_path, split="test").dataset) == 4
    with pytest.raises(SelfposError, match="has no split 'dev'; found test, train"):
        load_source("set", STS, data_root=tmp_path, split="dev")


def test_a_local_copy_may_have_other_columns_and_another_split(tmp_path: Path) -> None:
    copied = [
        {"left": pair["sentence1"], "right": pair["sentence2"], "score": pair["score"]} for pair in PAIRS
    ]
    write_lines(tmp_path / "set" / "test.jsonl", copied)
    local = {"data": "set", "split": "test", "columns": {"sentence1": "left", "sentence2": "right"}}
    source = TaskSource.model_validate(
        {"type": "sts", "data": "hub:some/pairs", "columns": {"score": "grade"}, "local": local}
    )
    assert load_task(source, seed=0, data_root=tmp_path).dataset.to_list() == PAIRS
    with pytest.raises(OperationError, match="some/pairs"):
        load_task(source, seed=0)


def test_beir_folder_becomes_pairs_or_pools(beir: Path) -> None:
    assert load_source(str(beir), get_task("retrieval")).dataset.to_list() == [
        {"anchor": "query 0", "positive": "document 0"},
        {"anchor": "query 0", "positive": "T document 1"},
        {"anchor": "query 1", "positive": "T document 2"},
    ]
    assert load_source(str(beir), get_task("reranking")).dataset.to_list() == [
        {"query": "query 0", "positive": ["document 0", "T document 1"], "negative": ["T document 2"]}
    ]


def test_judgements_of_what_does_not_exist_are_left_out_and_counted(beir: Path) -> None:
    file = beir / "qrels" / "train.tsv"
    file.write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\nq0\td9\t1\nq7\td0\t1\nq8\td0\t1\n")
    found = load_source(str(beir), get_task("retrieval"))
    assert found.dataset.to_list() == [{"anchor": "query 0", "positive": "document 0"}]
    left_out = "judgements left out: 1 of a document that is not there, 2 of a query that is not there"
    assert left_out in found.description
    file.write_text("query-id\tcorpus-id\tscore\nq0\td9\t1\n")
    with pytest.raises(
        SelfposError, match=r"has no judgements of a query and a document that are there; .* 'd9', "
    ):
        load_source(str(beir), get_task("retrieval"))


def test_records_without_value_or_text_are_dropped_and_counted(tmp_path: Path) -> None:
    odd = [
        {"sentence1": "  ", "sentence2": "x", "score": 1},
        {"sentence1": "x", "sentence2": None, "score": 1},
        {"sentence1": "x", "sentence2": "y"},
    ]
    found = load_source(str(write_lines(tmp_path / "a.jsonl", PAIRS + odd)), STS)
    assert found.dataset.to_list() == PAIRS
    assert found.dropped == {"blank text": 1, "missing value": 2}
    assert "dropped: " in found.description and "2 with a missing value" in found.description


def test_an_empty_cell_is_missing_and_the_word_null_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\nnull,NA\n,x\nword,y\n")
    found = load_source(str(tmp_path / "a.csv"), get_task("classification"))
    assert found.dataset.to_list() == [{"text": "null", "label": "NA"}, {"text": "word", "label": "y"}]


def test_columns_by_alias_and_by_name(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"utterance": "hello", "intent": "greet", "more": 1}])
    assert load_source(str(tmp_path / "a.jsonl"), get_task("classification")).dataset.to_list() == [
        {"text": "hello", "label": "greet"}
    ]
    found = load_source(str(tmp_path / "a.jsonl"), get_task("classification"), columns={"label": "more"})
    assert found.dataset.to_list() == [{"text": "hello", "label": 1}]


def test_limit_draws_with_the_seed_and_keeps_the_order(tmp_path: Path) -> None:
    file = str(write_lines(tmp_path / "a.jsonl", PAIRS))
    first, same, other = (load_source(file, STS, limit=5, seed=seed) for seed in (1, 1, 2))
    scores = first.dataset["score"][:]
    assert scores == sorted(scores) and len(scores) == 5
    assert first.hash == same.hash != other.hash
    assert first.description.endswith("5 of 10 records")


def test_several_sources_follow_each_other(tmp_path: Path) -> None:
    one, two = write_lines(tmp_path / "a.jsonl", PAIRS[:3]), write_lines(tmp_path / "b.jsonl", PAIRS[5:])
    assert load_source([str(one), str(two)], STS).dataset.to_list() == PAIRS[:3] + PAIRS[5:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "has no records"),
        ("a.jsonl", b'{"sentence1": "x"}\n{"sentence1": \n', "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1: expected a JSON object or a list of texts, found list"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 99, mtime=0)[:-9], "cannot be read to its end"),
        ("a.json", b'{"a": 1}', "must hold a list of JSON objects"),
        ("a.csv", b"", "has no records"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("a.xml", b"<a/>", "is of no known kind; expected one of .jsonl"),
        ("a.jsonl", b'{"sentence1": "x"}\n', "lacks sentence2 and score"),
        (
            "a.jsonl",
            b'{"sentence1": "", "sentence2": "x", "score": 1}\n',
            "has no usable records: 1 with a blank text",
        ),
        (
            "a.jsonl",
            b'{"sentence1": "x", "sentence2": "y", "score": 1}\n'
            b'{"sentence1": 5, "sentence2": "y", "score": 1}\n',
            "the field 'sentence1' holds values of different kinds",
        ),
    ],
)  # fmt: skip
def test_bad_files_give_one_sentence_that_names_the_file(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SelfposError) as caught:
        load_source(str(tmp_path / name), STS)
    assert name in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_file_and_mistyped_corpus() -> None:
    with pytest.raises(SelfposError, match=r"there is no file or folder corpis; .*did you mean 'corpus'\?"):
        load_source("corpis", STS)
    with pytest.raises(SelfposError, match=r"data 'hub:': no data set is named; expected 'hub:NAME"):
        load_source("hub:", STS)


@pytest.mark.parametrize(
    "header",
    ["text,label", "text;label", "text\tlabel", "\ufefftext;label", "\n \r\ntext;label", "\n\ntext,label"],
)
def test_the_separator_of_a_csv_is_that_of_its_header(header: str, tmp_path: Path) -> None:
    separator = header.strip()[-6]
    rows = "".join(f"{separator.join((f'text {n}', str(n % 2)))}\n" for n in range(4))
    (tmp_path / "a.csv").write_text(f"{header}\n{rows}")
    assert load_source(str(tmp_path / "a.csv"), get_task("classification")).dataset["text"][0] == "text 0"


def test_a_comma_in_the_header_outside_quotes_is_the_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,a;b;c;d\none,x,1\ntwo,y,2\n")
    found = load_source(str(tmp_path / "a.csv"), get_task("classification"))
    assert found.dataset["text"][:] == ["one", "two"] and "columns not used: a;b;c;d" in found.description
    (tmp_path / "a.csv").write_text('text;label;"a, b, c, d"\none;x;1\ntwo;y;2\n')
    found = load_source(str(tmp_path / "a.csv"), get_task("classification"))
    assert found.dataset["text"][:] == ["one", "two"] and "columns not used: a, b, c, d" in found.description


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str) -> None:
    content = {"a.jsonl": "\n".join(map(json.dumps, PAIRS)), "a.json": json.dumps(PAIRS)}
    content["a.csv"] = "sentence1,sentence2,score\n" + "\n".join(
        ",".join(map(str, pair.values())) for pair in PAIRS
    )
    (tmp_path / name).write_text(content[name], encoding="utf-8-sig")
    assert load_source(str(tmp_path / name), STS).dataset.to_list() == PAIRS


def test_weights_are_shares_and_nothing_is_repeated(tmp_path: Path) -> None:
    one, two = (
        write_lines(tmp_path / "a.jsonl", PAIRS),
        write_lines(tmp_path / "b.jsonl", [{**pair, "score": -1.0} for pair in PAIRS[:4]]),
    )
    found = load_source([str(one), str(two)], STS, weights=[3, 2], seed=1).dataset
    scores = found["score"][:]
    assert scores.count(-1.0) == 4 and len(scores) == 10  # 4 is all of the scarcer, 6 go with it
    assert len({json.dumps(record) for record in found}) == 10
    assert load_source([str(one), str(two)], STS, weights=[3, 2], seed=1).dataset.to_list() == found.to_list()
    assert load_source([str(one), str(two)], STS, weights=[3, 2], seed=2).dataset.to_list() != found.to_list()
    with pytest.raises(
        ValueError, match="'weights' must hold one number for each of the data, found 2 for 1"
    ):
        TaskSource(type="sts", data=str(one), weights=[1, 2])


def test_duplicates_are_dropped_when_asked_and_across_sources(tmp_path: Path) -> None:
    one, two = (
        write_lines(tmp_path / "a.jsonl", [*PAIRS, PAIRS[3]]),
        write_lines(tmp_path / "b.jsonl", PAIRS[:2]),
    )
    assert len(load_source([str(one), str(two)], STS).dataset) == 13
    found = load_source([str(one), str(two), str(one)][:1], STS, duplicates="drop")
    assert found.dataset.to_list() == PAIRS and found.dropped == {"duplicate": 1} and found.found == 11
    assert found.description.endswith("10 records (dropped: 1 that occur before)")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_streamed_files_give_the_same_records_from_a_mapped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import datasets
    import pandas as pd

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / name
    if "jsonl" in name:
        write_lines(file, PAIRS)
    elif name.endswith("csv"):
        pd.DataFrame(PAIRS).to_csv(file, index=False)
    else:
        pd.DataFrame(PAIRS).to_parquet(file)
    found = load_source(str(file), STS, streaming=True)
    assert found.dataset.to_list() == PAIRS and found.hash == load_source(str(file), STS).hash
    assert found.dataset.cache_files and all(
        str(tmp_path / "cache") in part["filename"] for part in found.dataset.cache_files
    )
    assert load_source(str(file), STS, streaming=True, limit=3).dataset.to_list() == PAIRS[:3]


def test_a_stream_reads_no_more_than_its_limit_and_a_changed_file_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS[:4]) + "not JSON\n")
    assert len(load_source(str(file), STS, streaming=True, limit=4).dataset) == 4
    with pytest.raises(SelfposError, match=r"a\.jsonl, line 5 is not JSON"):
        load_source(str(file), STS, streaming=True)
    write_lines(file, PAIRS)
    assert len(load_source(str(file), STS, streaming=True).dataset) == 10


def test_a_streamed_hub_set_is_shuffled_within_a_window_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    many = [{"sentence1": f"one {n}", "sentence2": f"two {n}", "score": float(n)} for n in range(50)]
    asked = []

    def load(
        name: str, config: str | None, *, split: str, revision: str | None, streaming: bool
    ) -> datasets.IterableDataset:
        asked.append((revision, streaming))
        return datasets.Dataset.from_list(many).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("selfpos.data.sources.commit_of", lambda name, revision: ("c0ffee", True))
    found = load_source("hub:some/set:default", STS, streaming=True, limit=10, seed=3)
    assert asked == [("c0ffee", True)] and found.revisions == {"some/set": "c0ffee"}
    assert len(found.dataset) == 10 and found.dataset["score"][:] != [float(n) for n in range(10)]


def test_the_commit_of_a_hub_set_is_recorded_and_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import datasets
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "dataset_info", lambda name, revision: SimpleNamespace(sha=f"sha of {revision}")
    )
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *place, **more: (asked.append(more["revision"]), datasets.Dataset.from_list(PAIRS))[1],
    )
    assert load_source("hub:some/set:mrpc", STS).revisions == {"some/set": "sha of None"}
    assert load_source("hub:some/set:mrpc@v1", STS).revisions == {"some/set": "sha of v1"}
    assert asked == ["sha of None", "sha of v1"]


def test_hub_set_with_configuration_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, config, split, revision))
        return datasets.Dataset.from_list(PAIRS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = load_source("hub:some/set:mrpc@abc123", STS, split="validation")
    assert asked == [("some/set", "mrpc", "validation", "abc123")]
    assert found.dataset.to_list() == PAIRS


def test_the_hub_does_not_answer() -> None:
    with pytest.raises(
        OperationError,
        match=r"data 'hub:no/such': the Hugging Face Hub did not supply data set no/such, split 'train'",
    ):
        load_source("hub:no/such", STS)  # the suite runs with HF_HUB_OFFLINE


def test_without_a_network_the_cache_is_read_and_nothing_else_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import datasets
    import httpx2
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def unreachable(name: str, revision: str | None) -> None:
        raise httpx2.ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub, "dataset_info", unreachable)
    with pytest.raises(
        OperationError, match=r"there is no connection to it, and the cache has nothing of it; name a"
    ):
        load_source("hub:some/set", STS)
    datasets.Dataset.from_list(PAIRS).to_parquet(tmp_path / "a.parquet")
    datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache")
    )
    (made,) = (tmp_path / "cache").glob("parquet/*/*/*/dataset_info.json")
    kept = tmp_path / "cache" / "some___set" / "default" / "0.0.0" / "abcdef"
    shutil.copytree(made.parent, kept)
    (kept / "parquet-train.arrow").rename(kept / "set-train.arrow")
    assert load_source("hub:some/set", STS).dataset.to_list() == PAIRS
    assert datasets.config.HF_HUB_OFFLINE is False
