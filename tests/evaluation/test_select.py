from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfpos.data.corpus import Corpus
from selfpos.errors import SelfposError
from selfpos.evaluation import select_tasks
from tests.helpers.files import write_lines

STS_LINES = """{"sentence1": "a b", "sentence2": "a c", "score": 3.5}
{"sentence1": "x", "sentence2": "y", "score": 0}
"""


@pytest.fixture(autouse=True)
def made_up(made_up_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfpos.evaluation.select.load_corpus", lambda: made_up_corpus)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from datasets import config
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "sets"))


def test_corpus_stands_for_its_tasks_and_each_has_its_name(tmp_path: Path) -> None:
    names = [task.metadata.name for task in select_tasks(["corpus"], data_dir=tmp_path)]
    assert len(names) == 6
    assert [task.metadata.name for task in select_tasks([names[2], names[0], names[2]])] == [
        names[2],
        names[0],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hint"), [("stsbenchmrk", "STSBenchmark"), ("selfpos-MPRC", "selfpos-MRPC")]
)
def test_an_unknown_name_gets_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(SelfposError, match=f"there is no (MTEB )?task named '{name}'; did you mean '{hint}'"):
        select_tasks([name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"names": ["mydata"]},
            "'mydata'; expected one that `mteb available-tasks` lists, quick, corpus, or a",
        ),
        ({"names": ["mteb/stsbenchmark-sts"]}, "is the data of STSBenchmark; name that"),
        ({"names": [], "benchmark": "english"}, "'english'; `mteb available-benchmarks` lists them"),
        ({"names": ["STS17"], "subsets": ["de-en"]}, "subset of STS17 named 'de-en'; known: .*, en-de, "),
        (
            {"names": ["STS12", "SciFact"], "types": ["Clustering"]},
            r"none of the tasks STS12 \(STS\), SciFact \(Retrieval\) is of type Clustering; name other tasks",
        ),
    ],
)
def test_what_is_not_there_is_told_with_what_is(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        select_tasks(**choice)


def test_data_in_place_of_a_declaration_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "sts.jsonl").write_text(STS_LINES)
    with pytest.raises(SelfposError, match=r"sts.jsonl is no declaration of a task; write one"):
        select_tasks([str(tmp_path / "sts.jsonl")])


def test_a_model_among_the_tasks_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(SelfposError, match=r"is a model: name models before --tasks"):
        select_tasks(["STSBenchmark", str(tmp_path)])


@pytest.mark.slow
def test_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    names = [task.metadata.name for task in select_tasks(["STS22.v2", "STS12"], benchmark="MTEB(eng, v2)")]
    assert names[:2] == ["STS22.v2", "STS12"] and len(names) == len(set(names)) > 35
    with pytest.raises(
        SelfposError, match=r"no MTEB benchmark named 'MTEB\(eng v2\)'; did you mean 'MTEB\(eng, v2\)'"
    ):
        select_tasks([], benchmark="MTEB(eng v2)")
    with pytest.raises(SelfposError, match="name at least one task"):
        select_tasks([])


def test_missing_local_data_is_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "stsbenchmark").mkdir()
    (tmp_path / "stsbenchmark" / "test.jsonl").write_text(STS_LINES)
    with pytest.raises(SelfposError) as caught:
        select_tasks(
            ["STSBenchmark", "SciFact", "Banking77Classification", "selfpos-MRPC", "STS17", "corpus"],
            data_dir=tmp_path,
        )
    message = str(caught.value)
    assert message.startswith(
        f"data for 4 of 11 tasks is missing or does not load in {tmp_path}: SciFact (scifact/corpus.jsonl"
    )
    for wanted in (
        'scifact/queries.jsonl[.gz], scifact/qrels/test.tsv, with {"_id": "d1"',
        "or the Hub's files in mteb/scifact/); Banking77Classification (banking77/train.jsonl[.gz], "
        'banking77/test.jsonl[.gz], with {"text": "A text.", "label": "its class"}',
        "selfpos-MRPC (mrpc/test.jsonl[.gz], with {",
        "ko-ko/test.jsonl[.gz]",
        "or the Hub's files in mteb/sts17-crosslingual-sts/); put the files there (`selfpos fetch-data` "
        "downloads those of MTEB's), or leave out --data-dir to let mteb download the data from the Hub",
    ):
        assert wanted in message
    for place, found in (("nothing", "is not there"), ("stsbenchmark/test.jsonl", "is a file")):
        with pytest.raises(SelfposError, match=rf"{place} {found}; expected a folder .* fetch-data"):
            select_tasks(["STSBenchmark"], data_dir=tmp_path / place)


def test_what_helps_is_said_by_what_is_missing(tmp_path: Path, offline: None) -> None:
    """The Hub has nothing of our own tasks, whose files are named without a folder of data, too."""
    with pytest.raises(SelfposError) as caught:
        select_tasks(["selfpos-MRPC"], data_dir=tmp_path)
    assert str(caught.value).endswith('"label": 1}); put the files there')
    with pytest.raises(SelfposError) as caught:
        select_tasks(["selfpos-MRPC"])
    assert "mrpc/ with {" in str(caught.value)
    assert str(caught.value).endswith("; give a folder that has it with --data-dir")


def test_a_task_of_mtebs_with_other_columns_is_not_told_to_name_them(tmp_path: Path) -> None:
    write_lines(tmp_path / "stsbenchmark" / "test.jsonl", [{"a": "b"}])
    with pytest.raises(SelfposError, match="lacks sentence1 and sentence2 and score") as caught:
        select_tasks(["STSBenchmark"], data_dir=tmp_path)
    assert "--column" not in str(caught.value) and "expected stsbenchmark/, with {" in str(caught.value)


def test_offline_says_what_was_never_fetched(tmp_path: Path, offline: None) -> None:
    (tmp_path / "hub" / "datasets--mteb--sts12-sts").mkdir(parents=True)
    assert len(select_tasks(["STS12", "corpus"])) == 7
    with pytest.raises(SelfposError) as caught:
        select_tasks(["STS12", "STS13", "selfpos-MRPC"])
    assert (
        "data for 2 of 3 tasks is missing or does not load on this machine: STS13 (data set mteb/sts13-sts); "
        "selfpos-MRPC (on files of yours alone, mrpc/ with {" in str(caught.value)
    )
    assert "--data-dir" in str(caught.value) and "HF_HUB_OFFLINE" in str(caught.value)
