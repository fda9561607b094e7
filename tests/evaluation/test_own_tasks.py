"""The user's own tasks score what mteb's of the same type score on the same data, and say what decides it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from selfpos.errors import SelfposError
from selfpos.evaluation import evaluate, select_tasks
from tests.helpers.files import write_lines
from tests.helpers.own_tasks import declare, sentence, sentences


def scores_of(model: Path, folder: Path, names: list[Any], data_dir: Path | None = None) -> dict[str, float]:
    tasks = [task for name in names for task in select_tasks([name], data_dir=data_dir)]
    return {name: score.main_score for name, score in evaluate(model, tasks, folder, name="tiny").items()}


def grouped(count: int, groups: int = 4) -> list[dict[str, Any]]:
    rng = random.Random(3)
    words = [sentence(rng, 8).split() for _ in range(groups)]
    return [
        {
            "text": " ".join([*rng.sample(words[n % groups], 4), sentence(rng, 2)]),
            "label": f"group {n % groups}",
        }
        for n in range(count)
    ]


def test_sts_is_mtebs(tiny_base: Path, tmp_path: Path) -> None:
    rows = [
        {"sentence1": a, "sentence2": b, "score": n % 6}
        for n, (a, b) in enumerate(zip(sentences(40), sentences(40, 1), strict=True))
    ]
    write_lines(tmp_path / "mteb" / "sts16-sts" / "test.jsonl", rows)
    own = declare(tmp_path, name="Mine", type="sts", files={"test": "mteb/sts16-sts/test.jsonl"})
    found = scores_of(tiny_base, tmp_path / "out", [own, "STS16"], tmp_path)
    assert found["Mine"] == found["STS16"]


def test_pair_classification_is_mtebs(tiny_base: Path, tmp_path: Path) -> None:
    nested = {"sent1": sentences(40), "sent2": sentences(40, 1), "labels": [n % 2 for n in range(40)]}
    write_lines(tmp_path / "mteb" / "twitterurlcorpus-pairclassification" / "test.jsonl", [nested])
    rows = [
        dict(zip(("question1", "question2", "is_duplicate"), row, strict=True))
        for row in zip(*nested.values(), strict=True)
    ]
    write_lines(tmp_path / "mine.jsonl", rows)
    own = declare(tmp_path, name="Mine", type="pair-classification", files={"test": "mine.jsonl"})
    found = scores_of(tiny_base, tmp_path / "out", [own, "TwitterURLCorpus"], tmp_path)
    assert found["Mine"] == found["TwitterURLCorpus"]


@pytest.mark.slow
def test_classification_is_mtebs_with_the_samples_that_are_declared(tiny_base: Path, tmp_path: Path) -> None:
    rows = grouped(160)
    folder = tmp_path / "mteb" / "banking77"
    numbers = {f"group {n}": n for n in range(4)}
    for split, part in (("train", rows[:100]), ("test", rows[100:])):
        write_lines(tmp_path / f"{split}.jsonl", part)
        write_lines(folder / f"{split}.jsonl", [row | {"label": numbers[row["label"]]} for row in part])
    files = {"train": "train.jsonl", "test": "test.jsonl"}
    own = declare(tmp_path, name="Mine", type="classification", files=files)
    found = scores_of(tiny_base, tmp_path / "out", [own, "Banking77Classification"], tmp_path)
    assert found["Mine"] == found["Banking77Classification"]
    (task,) = select_tasks([own])
    for said in ("train: 100 records", "test: 60 records", "samples_per_label 8; n_experiments 10; seed 42"):
        assert said in task.remark
    (seeded,) = select_tasks(
        [declare(tmp_path, name="Mine", type="classification", files=files, settings={"seed": 7})]
    )
    assert seeded.seed == 7 and seeded.metadata.revision != task.metadata.revision
    more = declare(
        tmp_path, name="Mine", type="classification", files=files, settings={"samples_per_label": 20}
    )
    (task,) = select_tasks([more])
    assert task.samples_per_label == 20 and "samples_per_label 20" in task.remark
    again = scores_of(tiny_base, tmp_path / "out", [more])  # another revision: scored anew
    assert again["Mine"] != found["Mine"]


@pytest.mark.slow
def test_clustering_takes_all_texts_or_the_share_of_mtebs(tiny_base: Path, tmp_path: Path) -> None:
    from mteb.abstasks import AbsTaskClustering

    rows = grouped(200, 5)
    write_lines(tmp_path / "mine.jsonl", rows)
    nested = {"sentences": [row["text"] for row in rows], "labels": [row["label"] for row in rows]}
    write_lines(tmp_path / "mteb" / "twentynewsgroups-clustering" / "test.jsonl", [nested])
    fields = {"type": "clustering", "files": {"test": "mine.jsonl"}}
    share = {"max_fraction_of_documents_to_embed": AbsTaskClustering.max_fraction_of_documents_to_embed}
    own = declare(tmp_path, name="Mine", settings=share, **fields)
    found = scores_of(tiny_base, tmp_path / "out", [own, "TwentyNewsgroupsClustering.v2"], tmp_path)
    assert found["Mine"] == found["TwentyNewsgroupsClustering.v2"]  # of 8 texts
    whole = declare(tmp_path, name="Mine", **fields)
    (task,) = select_tasks([whole])
    assert task.max_fraction_of_documents_to_embed is None and "n_clusters 10" in task.remark
    everything = scores_of(tiny_base, tmp_path / "whole", [whole])["Mine"]
    half = declare(tmp_path, name="Mine", settings={"max_document_to_embed": 200}, **fields)
    assert scores_of(tiny_base, tmp_path / "half", [half])["Mine"] == pytest.approx(everything, abs=0.02)
    write_lines(tmp_path / "mine.jsonl", rows[:20])
    assert 0 < scores_of(tiny_base, tmp_path / "few", [whole])["Mine"] <= 1


def test_reranking_is_mtebs_and_drops_what_mteb_drops(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.text import reranking

    texts = iter(sentences(500))
    rows: list[dict[str, Any]] = [
        {
            "query": next(texts),
            "positive": [next(texts) for _ in range(n % 3)],
            "negative": [next(texts) for _ in range((n + 1) % 4)],
        }
        for n in range(24)
    ]
    rows[4]["negative"] = [*rows[4]["positive"], "x y"]  # ties
    write_lines(tmp_path / "mine.jsonl", rows)
    own = declare(tmp_path, name="Mine", type="reranking", files={"test": "mine.jsonl"})
    theirs = type(
        "Theirs", (reranking.AbsTaskReranking,), {"metadata": mteb.get_task("AskUbuntuDupQuestions").metadata}
    )()
    monkeypatch.setattr(reranking, "OLD_FORMAT_RERANKING_TASKS", ["AskUbuntuDupQuestions"])
    theirs.transform_old_dataset_format({"default": DatasetDict(test=Dataset.from_list(rows))})
    (mine,) = select_tasks([own])
    found = evaluate(tiny_base, [mine, theirs], tmp_path / "out", name="tiny")
    assert found["Mine"].main_score == found["AskUbuntuDupQuestions"].main_score
    kept = sum(bool(row["positive"] and row["negative"]) for row in rows)
    left_out = f"{len(rows) - kept} records gathered with others of their question, or left out"
    assert f"test: {kept} records" in mine.remark and left_out in mine.remark


def test_one_text_as_positive_is_one_document(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "positive": "bcd", "negative": ["e f", "g"]},
        {"query": "h", "positive": "i j", "negative": ["k"]},
    ]
    write_lines(tmp_path / "mine.jsonl", rows)
    (task,) = select_tasks([declare(tmp_path, name="Mine", type="reranking", files={"test": "mine.jsonl"})])
    task.load_data()
    data = task.dataset["default"]["test"]
    assert sorted(data["corpus"]["text"]) == ["bcd", "e f", "g", "i j", "k"]
    assert [sum(grades.values()) for grades in data["relevant_docs"].values()] == [1, 1]


@pytest.mark.parametrize(("task", "identical"), [("SciFact", False), ("FiQA2018", True)])
def test_retrieval_is_mtebs_with_and_without_identical_ids(
    tiny_base: Path, tmp_path: Path, task: str, identical: bool
) -> None:
    import mteb

    beir = tmp_path / str(mteb.get_task(task).metadata.dataset["path"])
    texts = sentences(40)
    write_lines(
        beir / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(texts)]
    )
    write_lines(beir / "queries.jsonl", [{"_id": f"d{n}", "text": texts[n]} for n in range(12)])
    judged = [{"query-id": f"d{n}", "corpus-id": f"d{n + 1}", "score": 1} for n in range(12)]
    write_lines(beir / "qrels" / "test.jsonl", judged)
    (beir / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: qrels/test.jsonl\n"
        "- config_name: corpus\n  data_files:\n  - split: corpus\n    path: corpus.jsonl\n"
        "- config_name: queries\n  data_files:\n  - split: queries\n    path: queries.jsonl\n---\n"
    )
    fields = {"type": "retrieval", "files": {"folder": str(beir)}}
    settings = {"ignore_identical_ids": True} if identical else {}
    own = declare(tmp_path, name="Mine", settings=settings, **fields)
    (mine,) = select_tasks([own])
    assert (
        "12 queries have the id of a document" in mine.remark
        and f"ignore_identical_ids {identical}" in mine.remark
    )
    found = scores_of(tiny_base, tmp_path / "out", [own, task], tmp_path)
    assert found["Mine"] == found[task]
    other = declare(tmp_path, name="Mine", settings={"ignore_identical_ids": not identical}, **fields)
    assert scores_of(tiny_base, tmp_path / "other", [other])["Mine"] != found["Mine"]


def test_questions_and_answers_in_one_file_are_the_beir_folder_of_them(
    tiny_base: Path, tmp_path: Path
) -> None:
    questions, answers = sentences(12), sentences(8, 1)
    pairs = [(question, answers[n % 6]) for n, question in enumerate([*questions, questions[0]])]
    rows = [{"question": one, "answer": other, "negatives": answers[6:]} for one, other in pairs]
    write_lines(tmp_path / "pairs.jsonl", rows)
    beir = tmp_path / "beir"
    write_lines(beir / "corpus.jsonl", [{"_id": f"d{n}", "text": text} for n, text in enumerate(answers)])
    write_lines(beir / "queries.jsonl", [{"_id": f"q{n}", "text": text} for n, text in enumerate(questions)])
    (beir / "qrels").mkdir()
    judged = "".join(f"q{questions.index(one)}\td{answers.index(other)}\t1\n" for one, other in pairs)
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")
    pairs_task = declare(tmp_path, name="Mine", type="retrieval", files={"test": "pairs.jsonl"})
    assert "12 queries, 8 documents" in select_tasks([pairs_task])[0].remark
    found = scores_of(tiny_base, tmp_path / "pairs", [pairs_task])
    beir_task = declare(tmp_path, name="Mine", type="retrieval", files={"folder": "beir"})
    assert found == pytest.approx(scores_of(tiny_base, tmp_path / "out", [beir_task]), abs=1e-9)


def test_judgements_that_point_nowhere_are_left_out_and_said(tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    write_lines(beir / "corpus.jsonl", [{"_id": "d1", "text": "a"}, {"_id": "d2", "text": "b"}])
    write_lines(beir / "queries.jsonl", [{"_id": "q1", "text": "c"}])
    (beir / "qrels").mkdir()
    (beir / "qrels" / "test.tsv").write_text("q1\td1\t1\nq1\td9\t1\nq7\td1\t1\n")
    (task,) = select_tasks([declare(tmp_path, name="Mine", type="retrieval", files={"folder": "beir"})])
    assert (
        "judgements left out: 1 of a document that is not there, 1 of a query that is not there"
        in task.remark
    )
    task.load_data()
    assert task.dataset["default"]["test"]["relevant_docs"] == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("sts", [{"sentence1": "a", "sentence2": "b", "score": "3,5"}] * 2, "a point before .* found '3,5'"),
        (
            "sts",
            [{"sentence1": "a", "sentence2": "", "score": 1}] * 2,
            "has no usable records: 2 with a blank text",
        ),
        (
            "sts",
            [
                {"sentence1": "a", "sentence2": "b", "score": None},
                {"sentence1": "a", "sentence2": "b", "score": 2},
            ],
            "1 with a missing value",
        ),
        (
            "pair-classification",
            [{"sentence1": "a", "sentence2": "b", "label": 1}] * 2,
            "all 2 records of test have the label 1",
        ),
        (
            "pair-classification",
            [{"sentence1": "a", "sentence2": "b", "label": 2}] * 2,
            "found 2; write them as 1 and 0",
        ),
        ("clustering", [{"text": "a", "label": "x"}] * 3, "all 3 records of test have the label x"),
        (
            "clustering",
            [{"text": t, "label": t} for t in "abc"],
            "each of the 3 records of test has a label of its own",
        ),
        (
            "sts",
            [{"sentence1": "a", "sentence2": "b", "score": 1}],
            "all 1 records of test have the score 1;",
        ),
        (
            "clustering",
            [{"text": "a", "label": "x"}, {"text": "b", "label": 1}],
            "the field 'label' holds values of different kinds",
        ),
        (
            "reranking",
            [{"query": "a", "positive": [], "negative": ["c"]}],
            "none of the 1 records of the reranking set",
        ),
    ],
)
def test_records_are_checked_whole_before_a_model_is_loaded(
    tmp_path: Path, kind: str, rows: list[dict[str, Any]], message: str
) -> None:
    write_lines(tmp_path / "mine.jsonl", rows)
    with pytest.raises(SelfposError, match=message):
        select_tasks([declare(tmp_path, name="Mine", type=kind, files={"test": "mine.jsonl"})])


def test_labels_that_train_lacks_are_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write_lines(tmp_path / "test.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "z"}])
    with pytest.raises(SelfposError, match=r"1 labels of test are not in train \(z\)"):
        select_tasks(
            [
                declare(
                    tmp_path,
                    name="Mine",
                    type="classification",
                    files={s: f"{s}.jsonl" for s in ("train", "test")},
                )
            ]
        )


def classified(folder: Path, train: list[Any], test: list[Any]) -> str:
    """A declaration of a classification task whose labels are these; the texts of the splits differ."""
    for split, labels in (("train", train), ("test", test)):
        write_lines(
            folder / f"{split}.jsonl",
            [{"text": f"{split} {n}", "label": label} for n, label in enumerate(labels)],
        )
    return declare(
        folder, name="Mine", type="classification", files={s: f"{s}.jsonl" for s in ("train", "test")}
    )


@pytest.mark.parametrize("test", [["1", "2"], [1.0, 2.0]])
def test_a_class_is_the_same_as_number_and_as_text(tmp_path: Path, test: list[Any]) -> None:
    (task,) = select_tasks([classified(tmp_path, [1, 2, 1, 2], test)])
    task.load_data()
    assert [task.dataset[split]["label"][:] for split in ("train", "test")] == [[0, 1, 0, 1], [0, 1]]


def test_what_a_classifier_has_seen_or_cannot_see_is_said(tmp_path: Path) -> None:
    (task,) = select_tasks([classified(tmp_path, ["x", "y", "x"], ["x", "y"])])
    assert "train has labels of 1 texts" in task.remark and "are in train, too" not in task.remark
    rows = [{"text": f"a {n}", "label": n % 2} for n in range(20)]
    write_lines(tmp_path / "train.jsonl", rows)
    write_lines(tmp_path / "test.jsonl", [rows[0], {"text": "b", "label": 1}])
    (task,) = select_tasks([str(tmp_path / "mine.yaml")])
    assert "1 texts of test are in train, too" in task.remark and "train has labels" not in task.remark
    write_lines(tmp_path / "test.jsonl", rows[3:6])
    with pytest.raises(SelfposError, match="all texts of test are in train, too"):
        select_tasks([str(tmp_path / "mine.yaml")])


def test_queries_without_a_right_document_count_as_in_mteb_and_are_counted(
    tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "beir"
    write_lines(
        folder / "corpus.jsonl", [{"_id": f"d{n}", "text": text} for n, text in enumerate(sentences(3))]
    )
    write_lines(
        folder / "queries.jsonl", [{"_id": f"q{n}", "text": text} for n, text in enumerate(sentences(2))]
    )
    (folder / "qrels").mkdir()
    judged = folder / "qrels" / "test.tsv"
    judged.write_text("q0\td0\t1\nq1\td1\t0\n")
    own = declare(tmp_path, name="Mine", type="retrieval", files={"folder": "beir"})
    (task,) = select_tasks([own])
    assert "1 queries have no right document and count as 0" in task.remark
    assert scores_of(tiny_base, tmp_path / "out", [own])["Mine"] == 0.5  # the other finds its own text
    judged.write_text("q0\td0\t0\nq1\td1\t0\n")
    with pytest.raises(SelfposError, match="no judgement of test is above 0"):
        select_tasks([own])
    with pytest.raises(SelfposError, match=r"there is no data file .*gone"):
        select_tasks([declare(tmp_path, name="Mine", type="retrieval", files={"folder": "gone"})])
