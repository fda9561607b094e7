"""Tasks by type and language, `quick`, tasks of the user's own, data in the Hub's layout, and fetching it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from selfpos.errors import OperationError, SelfposError
from selfpos.evaluation import evaluate, select_tasks
from selfpos.evaluation.local_data import fetch
from selfpos.evaluation.run import TasksFailedError
from selfpos.evaluation.select import QUICK_TASKS, wanted_tasks
from selfpos.evaluation.tasks import new_task
from tests.helpers.files import write_lines
from tests.helpers.own_tasks import declare, sentence


def names(tasks: list[Any]) -> list[str]:
    return [task.metadata.name for task in tasks]


@pytest.mark.slow
def test_types_and_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    english = select_tasks([], benchmark="MTEB(eng, v2)", types=["STS"])
    assert len(english) > 5 and {str(task.metadata.type) for task in english} == {"STS"}
    (task,) = select_tasks(["STS22.v2", "STSBenchmark"], languages=["deu"])
    assert set(task.hf_subsets) == {"de", "de-en", "de-fr", "de-pl"}
    both = select_tasks([], types=["PairClassification"], languages=["swe", "dan"])
    assert 0 < len(both) < 20 and {str(task.metadata.type) for task in both} == {"PairClassification"}
    with pytest.raises(SelfposError, match="no MTEB task type named 'Retrival'; did you mean 'Retrieval'"):
        select_tasks([], types=["Retrival"])
    with pytest.raises(SelfposError, match="there is no language 'english'; languages have three letters"):
        select_tasks([], types=["STS"], languages=["english"])
    with pytest.raises(
        SelfposError, match=r"none of the tasks SciFact \(Retrieval\) is of type STS; name other tasks"
    ):
        select_tasks(["SciFact"], types=["STS"])
    (one,) = select_tasks(["STS17"], subsets=["en-en"])
    assert one.hf_subsets == ["en-en"]
    (sts17,) = (
        task
        for task in select_tasks([], benchmark="MTEB(eng, v2)", types=["STS"], languages=["eng"])
        if task.metadata.name == "STS17"
    )
    assert sts17.hf_subsets == ["en-en"]  # as the benchmark has it, not every subset with English
    with pytest.raises(SelfposError, match=r"there is no subset of STS17 named 'en-xx'; known: .*en-en"):
        select_tasks(["STS17"], subsets=["en-xx"])
    with pytest.raises(
        SelfposError, match=r"none of the tasks STS17 \(STS\) is of language spa, subset en-de"
    ):
        select_tasks(["STS17"], languages=["spa"], subsets=["en-de"])


@pytest.mark.slow
def test_quick_has_one_task_of_each_type(monkeypatch: pytest.MonkeyPatch, text_data: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    theirs = select_tasks(["quick"])
    assert names(theirs) == list(QUICK_TASKS)
    local = select_tasks(["quick"], data_dir=text_data)
    assert [str(task.metadata.type) for task in local] == [str(task.metadata.type) for task in theirs]
    assert len({str(task.metadata.type) for task in theirs}) == len(theirs)
    from selfpos.commands.eval_mteb import command

    assert all(task in str(command.help) for pair in QUICK_TASKS.items() for task in pair if task)


def test_a_task_of_ones_own_is_scored(tiny_base: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [{"question": sentence(rng), "other": sentence(rng), "same": number % 2} for number in range(40)]
    (tmp_path / "pairs.csv").write_text(
        "question,other,same\n" + "".join(f"{r['question']},{r['other']},{r['same']}\n" for r in rows)
    )
    columns = {"sentence1": "question", "sentence2": "other", "label": "same"}
    word = declare(
        tmp_path, name="Mine", type="pair-classification", files={"test": "pairs.csv"}, columns=columns
    )
    (task,) = select_tasks([word])
    scores = evaluate(tiny_base, [task], tmp_path / "out", name="tiny")
    assert scores["Mine"].metric == "max_ap" and 0 < scores["Mine"].main_score <= 1
    (again,) = select_tasks([word], data_dir=tmp_path)  # its data is its own, wherever others' is
    assert again.metadata.revision == task.metadata.revision
    (tmp_path / "pairs.csv").write_text("question,other,same\na,b,1\nc,d,0\n")
    assert select_tasks([word])[0].metadata.revision != task.metadata.revision


def test_every_type_of_ones_own_loads(tmp_path: Path) -> None:
    lines = {
        "sts": [{"sentence1": "a", "sentence2": "b", "score": score} for score in (1.5, 2)],
        "classification": [{"text": "d", "label": "x"}, {"text": "e", "label": "y"}],
        "clustering": [{"text": text, "label": label} for text, label in ("ax", "bx", "cy")],
        "reranking": [{"query_id": "1", "query": "a", "positive": ["b"], "negative": ["c"]}],
    }
    for kind, rows in lines.items():
        write_lines(tmp_path / f"{kind}.jsonl", rows)
    for kind in lines:
        files = {"test": f"{kind}.jsonl"}
        if kind == "classification":
            files |= {"train": "clustering.jsonl"}
        (task,) = select_tasks([declare(tmp_path, name="Mine", type=kind, files=files)])
        task.load_data()
        assert task.dataset
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text('{"_id": "d", "text": "b"}\n')
    (beir / "queries.jsonl").write_text('{"_id": "q", "text": "a"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    (task,) = select_tasks([declare(tmp_path, name="Mine", type="retrieval", files={"folder": "beir"})])
    task.load_data()
    assert task.dataset["default"]["test"]["relevant_docs"] == {"q": {"d": 1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "stss"}, "task .*mine.yaml: field 'type'"),
        ({"colums": {}}, "there is no field 'colums'; did you mean 'columns'"),
        ({"files": {"train": "a.jsonl"}}, "a sts task has files: {test: test.csv}; found train"),
        ({"files": {"test": "gone.jsonl"}}, "there is no data file .*gone.jsonl"),
        (
            {"columns": {"sentense1": "a"}},
            "a sts task has sentence1, sentence2, score, not 'sentense1'; did you mean 'sentence1'",
        ),
        (
            {"columns": {"score": "grad"}},
            r"a.jsonl'?: the data has no column 'grad' to take as 'score'; did you mean 'grade'",
        ),
        ({"files": {"test": "torn.jsonl.gz"}}, "torn.jsonl.gz cannot be read to its end"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_said_at_once(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    import gzip

    line = '{"sentence1": "a", "sentence2": "b", "grade": 1}\n'
    (tmp_path / "a.jsonl").write_text(line)
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(line.encode() * 100)[:-12])
    fields = {
        "name": "Mine",
        "type": "sts",
        "files": {"test": "a.jsonl"},
        "columns": {"score": "grade"},
        **changes,
    }
    with pytest.raises(SelfposError, match=message):
        select_tasks([declare(tmp_path, **fields)])


def test_a_name_of_mtebs_is_taken(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"sentence1": "a", "sentence2": "b", "score": n} for n in range(2)])
    for name in ("STSBenchmark", "selfpos-MRPC", "PythonDocsNames"):
        taken = declare(tmp_path, name=name, type="sts", files={"test": "a.jsonl"})
        with pytest.raises(SelfposError, match=f"{name} is the name of another task"):
            select_tasks([taken])
    (tmp_path / "b.jsonl").write_text((tmp_path / "a.jsonl").read_text() * 2)
    other = str(tmp_path / "other.yaml")
    Path(declare(tmp_path, name="Mine", type="sts", files={"test": "b.jsonl"})).rename(other)
    mine = declare(tmp_path, name="Mine", type="sts", files={"test": "a.jsonl"})
    with pytest.raises(SelfposError, match="two tasks are called Mine; give one of your own another name"):
        select_tasks([mine, other])
    assert len(select_tasks([mine, mine])) == 1
    with pytest.raises(SelfposError, match=r"there is no task file \S*gone.yaml"):
        select_tasks([str(tmp_path / "gone.yaml")])


def hub_layout(folder: Path) -> None:
    """STS16 and SciFact as their repositories are:

    JSON lines by split; and one configuration each for corpus, queries and judgements.
    """
    rng = random.Random(0)
    sts = folder / "mteb" / "sts16-sts"
    sts.mkdir(parents=True)
    rows = [
        {"sentence1": sentence(rng), "sentence2": sentence(rng), "score": rng.uniform(0, 5)}
        for _ in range(30)
    ]
    (sts / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    beir = folder / "mteb" / "scifact"
    (beir / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{n}", "title": "", "text": sentence(rng)} for n in range(20)]
    queries = [{"_id": f"q{n}", "text": documents[n]["text"]} for n in range(10)]
    (beir / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    (beir / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (beir / "qrels" / "test.jsonl").write_text(
        "".join(
            json.dumps({"query-id": f"q{n}", "corpus-id": f"d{n}", "score": 1.0}) + "\n" for n in range(10)
        )
    )
    (beir / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: qrels/test.jsonl\n"
        "- config_name: corpus\n  data_files:\n  - split: corpus\n    path: corpus.jsonl\n"
        "- config_name: queries\n  data_files:\n  - split: queries\n    path: queries.jsonl\n---\n"
    )


def test_data_in_the_hubs_layout_is_scored(tiny_base: Path, tmp_path: Path) -> None:
    hub_layout(tmp_path / "data")
    tasks = select_tasks(["STS16", "SciFact"], data_dir=tmp_path / "data")
    assert all(task.metadata.revision.startswith("local-") for task in tasks)
    scores = evaluate(tiny_base, tasks, tmp_path / "out", name="tiny")
    assert scores["SciFact"].main_score == pytest.approx(1)  # each query is its document
    assert json.loads(scores["STS16"].file.read_text())["dataset_revision"] == tasks[0].metadata.revision
    with pytest.raises(SelfposError, match=r"or the Hub's files in mteb/sts17-crosslingual-sts/\)"):
        select_tasks(["STS16", "STS17"], data_dir=tmp_path / "data")


def test_fetching_fills_the_folder_and_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub is stood in for: its files appear where `snapshot_download` is asked to put them."""
    asked = []

    def snapshot(path: str, *, repo_type: str, revision: str, local_dir: Path) -> None:
        asked.append((path, repo_type, revision))
        if path == "mteb/sts17-crosslingual-sts":
            raise OSError("no route\nto the Hub")
        local_dir.mkdir(parents=True)
        (local_dir / "test.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "score": 1}\n')

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    tasks = wanted_tasks(["STS16", "STS17", "corpus", "selfpos-MRPC"], None)
    assert names(tasks) == ["STS16", "STS17"]
    with pytest.raises(
        OperationError,
        match=r"the data of 1 tasks could not be fetched: STS17 \(mteb/sts17-crosslingual-sts: no route\)",
    ):
        fetch(tasks, tmp_path, lambda _: None)
    assert asked[0] == ("mteb/sts16-sts", "dataset", tasks[0].metadata.revision)
    assert names(select_tasks(["STS16"], data_dir=tmp_path)) == ["STS16"]


def test_a_partial_copy_says_which_subsets_are_there_and_one_can_be_asked_for(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": n} for n in range(3)]
    folder = tmp_path / "STS17" / "en-de"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SelfposError, match="there are the subsets en-de, which --subsets asks for alone"):
        select_tasks(["STS17"], data_dir=tmp_path)
    (task,) = select_tasks(["STS17"], data_dir=tmp_path, subsets=["en-de"])
    task.load_data()
    assert task.dataset["en-de"]["test"]["score"][:] == [0, 1, 2]


def test_without_a_network_a_task_says_how_to_get_its_data(tiny_base: Path, tmp_path: Path) -> None:
    def load() -> dict[str, object]:
        raise ConnectionError("Couldn't reach the Hub")

    task = new_task("sts", "selfpos-Failing", "Fails.", load, revision="one", source="selfpos/test")
    with pytest.raises(TasksFailedError, match=r"reach the Hub; run the same .* `selfpos fetch-data`"):
        evaluate(tiny_base, [task], tmp_path / "out", name="tiny")
