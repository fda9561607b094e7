"""What the file of a task of the user's own may say, and which data it may name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfpos.errors import SelfposError
from selfpos.evaluation import evaluate, select_tasks
from tests.helpers.files import write_lines
from tests.helpers.own_tasks import declare, sentences


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("sts", {"seed": 1}, "there is no field 'seed'"),
        ("clustering", {"max_fraction_of_documents_to_embed": 2}, "max_fraction_of_documents_to_embed"),
        ("clustering", {"max_fraction_of_documents_to_embed": 0.5, "max_document_to_embed": 9}, "not both"),
        ("clustering", {"n_cluster": 3}, "did you mean 'n_clusters'"),
    ],
)
def test_settings_are_checked(tmp_path: Path, kind: str, settings: dict[str, Any], message: str) -> None:
    rows = [
        {"text": "a", "label": "x", "sentence1": "a", "sentence2": "b", "score": 1},
        {"text": "b", "label": "y", "sentence1": "a", "sentence2": "b", "score": 2},
    ]
    write_lines(tmp_path / "mine.jsonl", rows)
    with pytest.raises(SelfposError, match=message):
        select_tasks(
            [declare(tmp_path, name="Mine", type=kind, files={"test": "mine.jsonl"}, settings=settings)]
        )


def test_a_partial_test_set_of_mtebs_is_marked(tiny_base: Path, tmp_path: Path) -> None:
    rows = [
        {"sentence1": a, "sentence2": b, "score": n % 6}
        for n, (a, b) in enumerate(zip(sentences(30), sentences(30, 1), strict=True))
    ]
    write_lines(tmp_path / "mteb" / "sts16-sts" / "test.jsonl", rows)
    (task,) = select_tasks(["STS16"], data_dir=tmp_path)
    assert "not MTEB's test set: test: rows 30 for 1,186; test: characters " in task.remark
    score = evaluate(tiny_base, [task], tmp_path / "out", name="tiny")["STS16"]
    assert json.loads(score.file.read_text())["dataset_revision"].startswith("local-altered-")
    (again,) = select_tasks(["STS16"], data_dir=tmp_path)  # known now
    assert again.metadata.revision == task.metadata.revision and again.remark == task.remark


@pytest.mark.parametrize("place", ["STS16", "mteb/sts16-sts", "sts16-sts"])
def test_a_task_of_mtebs_takes_the_usual_names_of_columns(tmp_path: Path, place: str) -> None:
    rows = [
        {"sent1": a, "sent2": b, "similarity": 1.5 * n} for n, (a, b) in enumerate((("a", "b"), ("c", "d")))
    ]
    write_lines(tmp_path / place / "test.jsonl", rows)
    (task,) = select_tasks(["STS16"], data_dir=tmp_path)
    task.load_data()
    assert task.dataset["test"]["sentence1"][:] == ["a", "c"] and task.dataset["test"]["score"][:] == [0, 1.5]


def test_a_task_of_mtebs_takes_a_beir_folder(tmp_path: Path) -> None:
    beir = tmp_path / "mteb" / "nfcorpus"
    write_lines(beir / "corpus.jsonl", [{"_id": "d1", "text": "a"}])
    write_lines(beir / "queries.jsonl", [{"_id": "q1", "text": "c"}])
    (beir / "qrels").mkdir()
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    (task,) = select_tasks(["NFCorpus"], data_dir=tmp_path)
    task.load_data()
    assert task.dataset["default"]["test"]["relevant_docs"] == {"q1": {"d1": 1}}


PAIR = {"sentence1": "a", "sentence2": "b", "score": 1}


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("STS16", {"train.jsonl": [PAIR]}, "does not load: it has no 'test'; expected "),
        ("STS16", {"test.jsonl": [{"sentence1": "a", "sentence2": "b"}]}, "Column 'score' doesn't exist"),
        ("STS16", {"test.jsonl": [PAIR | {"score": "high"}] * 2}, "'score' must hold numbers, found 'high'"),
        ("STS16", {"test.jsonl": [PAIR | {"score": None}] * 2}, "a field has text, or nothing, where mteb"),
        ("STS16", {"test.jsonl": []}, "one of its files is empty"),
        (
            "SciFact",
            {"default/test.jsonl": [{"query-id": "q", "corpus-id": "d", "score": 1}]},
            "no part 'corpus'",
        ),
        (
            "TwitterSemEval2015",
            {"test.jsonl": [{"sent1": ["a"], "sent2": ["b"], "labels": ["yes"]}]},
            "'labels' must hold numbers, found 'yes'",
        ),
        ("NFCorpus", {"corpus.jsonl": [{"_id": "d", "text": "a"}]}, "expected .*queries.jsonl"),
        ("Banking77Classification", {"train.jsonl": [{"text": "a", "label": 1}]}, "expected .*test.jsonl"),
    ],
)
def test_data_that_does_not_load_is_a_sentence_before_the_model(
    tmp_path: Path, name: str, files: dict[str, list[dict[str, Any]]], message: str
) -> None:
    import mteb

    folder = tmp_path / str(mteb.get_task(name).metadata.dataset["path"])
    for file, rows in files.items():
        write_lines(folder / file, rows)
    with pytest.raises(SelfposError, match=message) as caught:
        select_tasks([name], data_dir=tmp_path)
    assert "\n" not in str(caught.value) and "with {" in str(caught.value)


def test_the_declaration_in_the_docs_is_one(tmp_path: Path) -> None:
    import selfpos.evaluation.task_files as task_files

    shown = "\n".join(line for line in str(task_files.__doc__).splitlines() if line.startswith("    "))
    fields = yaml.safe_load(shown)
    (tmp_path / "pairs.csv").write_text("question,other,same\na,b,1\nc,d,0\n")
    (task,) = select_tasks([declare(tmp_path, **fields)])
    assert task.metadata.name == "SupportPairs"


def test_two_folders_with_equal_readmes_are_two_sets(tmp_path: Path) -> None:
    """The cache of `datasets` takes them for one: the data of the first folder was scored as that of the
    second.
    """
    readme = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    )
    for name in ("one", "two"):
        folder = tmp_path / name / "mteb" / "sts16-sts"
        rows = [{"sentence1": f"{name} {n}", "sentence2": f"b {n}", "score": n} for n in range(3)]
        write_lines(folder / "test.jsonl", rows)
        (folder / "README.md").write_text(readme)
        (task,) = select_tasks(["STS16"], data_dir=tmp_path / name)
        task.load_data()
        assert task.dataset["test"]["sentence1"][:] == [f"{name} {n}" for n in range(3)]


def test_a_pointer_of_git_lfs_is_named_in_a_copy_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "mteb" / "sts16-sts"
    folder.mkdir(parents=True)
    (folder / "test.jsonl.gz").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(
        SelfposError, match=r"test.jsonl.gz is a pointer of Git LFS, not the data; fetch that with"
    ):
        select_tasks(["STS16"], data_dir=tmp_path)
