"""Measures against their definitions, on embeddings made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from torch import nn

from selfpos.positioning.objective import TaskProbe
from selfpos.tasks.measure import TaskMeasure
from tests.helpers.stand_ins import GradedTask, PairTask


class Labelled(PairTask):
    target = "label"

    def loss(self, model: nn.Module, temperature: float) -> nn.Module:
        return nn.Identity()


def probe(task: PairTask, **columns: list) -> TaskProbe:
    return TaskProbe("task", task, Dataset.from_dict(columns), 0.05)


def embed(measure: TaskMeasure, vectors: dict[str, list[float]]) -> torch.Tensor:
    return torch.tensor([vectors[text] for text in measure.texts])


def test_graded_pairs_by_spearman() -> None:
    rng = np.random.default_rng(0)
    vectors = {text: rng.normal(size=4).tolist() for text in "abcdefghij"}
    first, second, scores = list("abcde"), list("fghij"), rng.random(5).tolist()
    own = probe(GradedTask(), sentence1=first, sentence2=second, score=scores)
    measure = TaskMeasure(own.everything(), own.everything())
    assert measure.texts == first + second
    cosines = [
        np.dot(vectors[x], vectors[y]) / np.linalg.norm(vectors[x]) / np.linalg.norm(vectors[y])
        for x, y in zip(first, second, strict=True)
    ]
    assert measure.score(embed(measure, vectors)) == pytest.approx(spearmanr(cosines, scores).statistic)


def test_labelled_pairs_by_average_precision() -> None:
    vectors = {"a": [1.0, 0], "near": [1, 0.1], "middle": [1, 1.0], "far": [0.0, 1]}
    own = probe(Labelled(), sentence1=["a"] * 3, sentence2=["near", "middle", "far"], label=[1, 0, 1])
    measure = TaskMeasure(own.everything(), own.everything())
    assert measure.score(embed(measure, vectors)) == pytest.approx((1 + 2 / 3) / 2)


def test_labelled_texts_by_the_nearest_mean_of_all_others() -> None:
    rng = np.random.default_rng(0)
    labels = dict(zip("abcdefghijkl", [0, 0, 1, 1, 2, 3, 0, 1, 3, 4, 5, 5], strict=True))
    centres = rng.normal(size=(6, 3))
    vectors = {text: (centres[label] + 0.7 * rng.normal(size=3)).tolist() for text, label in labels.items()}
    known = probe(Labelled(), text=list("abcdef"), label=[0, 0, 1, 1, 2, 3])
    own = probe(
        Labelled(), text=list("ghijkl"), label=[0, 1, 3, 4, 5, 5]
    )  # 4 occurs once and does not count; 5 only among its own
    measure = TaskMeasure(known.everything(), own.everything())
    units = {text: np.array(vector) / np.linalg.norm(vector) for text, vector in vectors.items()}
    hits = []
    for text in "ghikl":
        sums = {
            c: sum(units[other] for other in units if labels[other] == c and other != text)
            for c in set(labels.values())
        }
        hits.append(max(sums, key=lambda c: units[text] @ sums[c] / np.linalg.norm(sums[c])) == labels[text])
    assert 0 < sum(hits) < 5
    assert measure.score(embed(measure, vectors)) == pytest.approx(np.mean(hits))


VECTORS = {
    "a": [1.0, 0, 0], "A": [0.9, 0.3, 0], "b": [0, 1.0, 0],
    "B": [0.5, 0.6, 0.0], "c": [0.0, 0.0, 1.0], "C": [0, 0.9, 0.1],
}  # fmt: skip


def pair_measure() -> TaskMeasure:
    """On the pairs a–A and b–B, with c–C known: a is nearest to A, and b to C before B."""
    known = probe(PairTask(), anchor=["c"], positive=["C"])
    measured = probe(PairTask(), anchor=["a", "b"], positive=["A", "B"])
    return TaskMeasure(known.everything(), measured.everything())


def test_pairs_by_ndcg_among_the_second_texts_of_both_parts() -> None:
    measure = pair_measure()
    assert "c" not in measure.texts
    assert measure.score(embed(measure, VECTORS)) == pytest.approx((1 + 1 / math.log2(3)) / 2)


@pytest.mark.parametrize(
    ("similarity", "best"), [("cosine", "near"), ("dot", "long"), ("euclidean", "short")]
)
def test_candidates_are_ranked_by_the_similarity_of_the_model(similarity: str, best: str) -> None:
    vectors = {"q": [1.0, 0.0], "near": [4.0, 0.1], "long": [9.0, 3.0], "short": [0.8, 0.4], "r": [0.0, 1.0]}
    for candidate in ("near", "long", "short"):
        others = [text for text in ("near", "long", "short") if text != candidate]
        own = probe(PairTask(), anchor=["q"], positive=[candidate], negative=[others[0]])
        known = probe(PairTask(), anchor=["r"], positive=[others[1]], negative=[others[1]])
        measure = TaskMeasure(known.everything(), own.everything(), similarity)
        assert (measure.score(embed(measure, vectors)) == 1) == (candidate == best)


def test_a_text_that_occurs_twice_is_one_candidate() -> None:
    vectors = {"a": [1.0, 0], "b": [0.0, 1], "same": [1.0, 1.0]}
    own = probe(PairTask(), anchor=["a", "b"], positive=["same", "same"])
    measure = TaskMeasure(own.everything(), own.everything())
    assert measure.score(embed(measure, vectors)) == 1


def test_records_drawn_again_change_the_measure_as_records_do() -> None:
    measure = pair_measure()
    items = measure.items(embed(measure, VECTORS))
    assert measure.score_of(items, np.array([0, 0])) == 1
    assert measure.score_of(items, np.array([1, 1])) == pytest.approx(1 / math.log2(3))


def test_reranking_measures_each_question_among_its_own_candidates() -> None:
    """Mean average precision, the mean over questions; a question without a wrong candidate has none."""
    from sklearn.metrics import average_precision_score

    from selfpos.tasks.measure import Texts

    columns = [["q", "q", "r", "s"], ["a", "b", "a", "c"], ["x", "y", "z", "c"]]
    units = np.random.default_rng(0).normal(size=(12, 5))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    rows = {text: units[number] for number, text in enumerate("qrsabcxyz")}
    measure = TaskMeasure(Texts([[], [], []], None), Texts(columns, None, own_candidates=True))
    embeddings = torch.tensor(np.stack([rows[text] for text in measure.texts]))
    first = average_precision_score([1, 1, 0, 0], [rows["q"] @ rows[text] for text in "abxy"])
    second = average_precision_score([1, 0], [rows["r"] @ rows[text] for text in "az"])
    items = measure.items(embeddings)
    assert items["precisions"][:2] == pytest.approx([first, second])
    assert np.isnan(items["precisions"][2])
    assert measure.score(embeddings) == pytest.approx((first + second) / 2)
