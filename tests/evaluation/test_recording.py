"""Examples are recorded while mteb scores, and come to the score that it reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from selfpos.data.corpus import Corpus
from selfpos.evaluation import evaluate
from selfpos.evaluation.corpus_tasks import corpus_tasks
from selfpos.evaluation.run import revision_of
from selfpos.evaluation.tasks import new_task, retrieval_data
from selfpos.scores.examples import Examples, examples_file, read_examples, score_of, write_examples

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

KINDS = {
    "Retrieval": "mean",
    "Classification": "mean",
    "PairClassification": "average-precision",
    "Clustering": "v-measure",
}


def test_every_type_of_the_corpus_leaves_examples_that_give_its_score(
    tiny_base: Path, tmp_path: Path, made_up_corpus: Corpus
) -> None:
    tasks = {task.metadata.name: task for task in corpus_tasks(made_up_corpus)}
    scores = evaluate(tiny_base, list(tasks.values()), tmp_path, name="tiny")
    for name, score in scores.items():
        (part,) = read_examples(examples_file(score.file), revision_of(tasks[name]))
        assert part.kind == KINDS[score.type]
        assert score_of(part) == pytest.approx(score.main_score, abs=1e-5)
        assert not {"_evaluate_subset", "_save_task_predictions", "task_specific_scores"} & set(
            vars(tasks[name])
        )


def test_sts_and_reranking(tiny_base: Path, tmp_path: Path, sts_task: Callable[..., AbsTask]) -> None:
    documents = {f"d{number}": {"text": f"text {'abcdefgh'[number]}"} for number in range(8)}
    relevant = {f"q{number}": {f"d{2 * number}": 1, f"d{2 * number + 1}": 0} for number in range(4)}
    pools = {query: list(grades) for query, grades in relevant.items()}
    data = retrieval_data(documents, {query: f"about {query}" for query in relevant}, relevant, pools=pools)
    reranking = new_task(
        "reranking",
        "selfpos-Pools",
        "Pools.",
        lambda: {"default": {"test": data}},
        revision="one",
        source="selfpos/test",
    )
    scores = evaluate(tiny_base, [sts_task(), reranking], tmp_path, name="tiny")
    found = {name: read_examples(examples_file(score.file), "one")[0] for name, score in scores.items()}
    assert {name: (part.kind, part.count) for name, part in found.items()} == {
        "selfpos-TestSTS": ("spearman", 40),
        "selfpos-Pools": ("mean", 4),
    }
    for name, part in found.items():
        assert score_of(part) == pytest.approx(scores[name].main_score, abs=1e-5)


def test_classification_by_f1(tiny_base: Path, tmp_path: Path) -> None:
    from mteb.mocks import MockClassificationTask

    task = MockClassificationTask()
    task.metadata = task.metadata.model_copy(update={"main_score": "f1"})
    (score,) = evaluate(tiny_base, [task], tmp_path, name="tiny").values()
    (part,) = read_examples(examples_file(score.file), revision_of(task))
    assert score_of(part) == pytest.approx(score.main_score, abs=1e-5)


def test_other_types_are_scored_and_leave_no_examples(tiny_base: Path, tmp_path: Path) -> None:
    from mteb.mocks import MockMultilabelClassification

    (score,) = evaluate(tiny_base, [MockMultilabelClassification()], tmp_path, name="tiny").values()
    assert score.file.is_file()
    assert not examples_file(score.file).exists()


def test_a_clustering_that_draws_its_documents_is_drawn_again_the_same(
    tiny_base: Path, tmp_path: Path
) -> None:
    from datasets import Dataset, DatasetDict

    rows = {
        "sentences": [f"{'abcdef'[n % 6] * 3} {n}" for n in range(60)],
        "labels": [["xy"[n % 2], "uvw"[n % 3]] for n in range(60)],
    }
    attributes = {"max_fraction_of_documents_to_embed": 0.5, "max_documents_per_cluster": 20, "n_clusters": 3}
    task = new_task(
        "clustering",
        "selfpos-Levels",
        "Two levels.",
        lambda: DatasetDict(test=Dataset.from_dict(rows)),
        revision="one",
        source="selfpos/test",
        **attributes,
    )
    score = evaluate(tiny_base, [task], tmp_path, name="tiny")["selfpos-Levels"]
    (part,) = read_examples(examples_file(score.file), "one")
    assert part.count == 30
    assert part.arrays["clusters"].shape == (6, 20)
    assert score_of(part) == pytest.approx(score.main_score, abs=1e-5)


def test_what_does_not_come_to_the_score_is_not_kept(
    tiny_base: Path, tmp_path: Path, sts_task: Callable[..., AbsTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.evaluation.recording.score_of", lambda _: 0.987)
    score = evaluate(tiny_base, [sts_task()], tmp_path, name="tiny")["selfpos-TestSTS"]
    assert score.file.is_file()
    assert not examples_file(score.file).exists()


def test_parts_are_added_and_other_data_or_damage_is_no_examples(tmp_path: Path) -> None:
    def made(subset: str, value: float) -> Examples:
        return Examples("test", subset, "mean", 2, "key", {"values": np.array([value, value])})

    file = tmp_path / "examples" / "task.npz"
    write_examples(file, [made("en", 0.1), made("de", 0.2)], "one")
    write_examples(file, [made("de", 0.3)], "one")
    assert {part.subset: part.arrays["values"][0] for part in read_examples(file, "one")} == {
        "en": 0.1,
        "de": 0.3,
    }
    assert read_examples(file, "two") == []
    file.write_bytes(file.read_bytes()[:100])
    assert read_examples(file, "one") == []
