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
from selfpos.evaluation.mteb_internals import Evaluated
from selfpos.evaluation.recording import bitext_mining, instruction_following, ranking_precision
from selfpos.evaluation.run import revision_of
from selfpos.evaluation.tasks import new_task, retrieval_data
from selfpos.scores.examples import Examples, examples_file, read_examples, write_examples
from selfpos.scores.measures import score_of

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


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("MockBitextMiningTask", None),
        ("MockSummarizationTask", None),
        ("MockClassificationTask", "f1"),
        ("MockMultilabelClassification", "accuracy"),
        ("MockMultilabelClassification", "lrap"),
    ],
)
def test_the_other_types_as_mteb_has_them(
    name: str, metric: str | None, tiny_base: Path, tmp_path: Path
) -> None:
    from mteb import mocks

    task = getattr(mocks, name)()
    if metric:
        task.metadata = task.metadata.model_copy(update={"main_score": metric})
    (score,) = evaluate(tiny_base, [task], tmp_path, name="tiny").values()
    (part,) = read_examples(examples_file(score.file), revision_of(task))
    assert score_of(part) == pytest.approx(score.main_score, abs=1e-5)


def test_how_far_instructions_areinstruction_following_is_mtebs_mean_over_questions() -> None:
    from mteb._evaluators.retrieval_metrics import evaluate_p_mrr_change

    rng = np.random.default_rng(0)
    documents = [f"d{number}" for number in range(12)]
    relevant, found, changed = {}, {}, {}
    for question in ("q1", "q2", "q3"):
        relevant[f"{question}-og"] = dict.fromkeys(documents[:5], 1) | {"d11": 0}
        relevant[f"{question}-changed"] = dict.fromkeys(documents[:3], 1) | dict.fromkeys(documents[3:5], 0)
        changed[question] = documents[3:5]
        for which in ("og", "changed"):  # ties, and documents that were not found
            found[f"{question}-{which}"] = {
                name: float(rng.integers(4)) for name in documents if rng.random() < 0.8
            }
    part = instruction_following(relevant, found)
    assert part is not None
    assert part[3]["values"].shape == (3,)
    wanted = evaluate_p_mrr_change(relevant, found, changed, [1, 5])["p-MRR"]
    assert part[3]["values"].mean() == pytest.approx(wanted)
    assert wanted != 0


def test_labelranking_precision_of_each_text_is_scikit_learns() -> None:
    from sklearn.metrics import label_ranking_average_precision_score

    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(2, size=(60, 3)), rng.integers(2, size=(2, 60, 3))
    wanted = [
        [label_ranking_average_precision_score(a[None], b[None]) for a, b in zip(gold, one, strict=True)]
        for one in predicted
    ]
    assert ranking_precision(predicted, gold) == pytest.approx(np.array(wanted))


def test_f1_of_translations_found_more_than_once() -> None:
    """mteb's score is scikit-learn's F1 weighted by label; here each sentence has its own part of it."""
    from types import SimpleNamespace

    from sklearn.metrics import f1_score

    found = np.random.default_rng(0).integers(12, size=40) + np.arange(40) // 14 * 12
    task = SimpleNamespace(metadata=SimpleNamespace(main_score="f1"), _DEFAULT_PAIR=[("one", "two")])
    evaluated = Evaluated({"one": list("a" * 40), "two": list("b" * 40)}, "test", "default")
    evaluated.predictions = {"one-two": [{"corpus_id": int(index)} for index in found]}
    part = bitext_mining(task, evaluated)
    assert part is not None
    assert part[3]["values"].mean() == pytest.approx(
        f1_score(np.arange(40), found, average="weighted", zero_division=0)
    )
    assert 0 < part[3]["values"].mean() < 1


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
