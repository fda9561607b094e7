"""The smooth measures against plain loops in float64, record by record."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from selfpos.positioning.smooth import ClassMeans, GradedPairs, LabelledPairs, Ranking, Reranking

TEMPERATURE = 0.05
RNG = np.random.default_rng(3)


def units(count: int) -> np.ndarray:
    rows = RNG.normal(size=(count, 6))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log_share(own: float, all_cosines: list[float], temperature: float = TEMPERATURE) -> float:
    total = sum(math.exp(cosine / temperature) for cosine in all_cosines)
    return -math.log(math.exp(own / temperature) / total)


def spread(rows: list[list[float]]) -> float:
    """The deviation of numbers from the mean of their row."""
    squares = [(number - sum(row) / len(row)) ** 2 for row in rows for number in row]
    return math.sqrt(sum(squares) / len(squares))


def test_a_text_is_judged_by_the_means_of_all_other_texts_of_each_class() -> None:
    labels = [0, 0, 0, 1, 1, 2, 2, 3]
    texts = units(8)
    others = [0, 1, 2, 3, 4, 5, 7]
    measure = ClassMeans([f"text {row}" for row in range(8)], torch.tensor(labels), TEMPERATURE)
    rows, values = measure.values(torch.tensor(texts), torch.arange(8), torch.tensor(others))
    cosines: dict[int, dict[int, float]] = {}
    for row in range(8):
        cosines[row] = {}
        for known in range(4):
            members = [other for other in others if labels[other] == known and other != row]
            if members:
                mean = texts[members].sum(0)
                cosines[row][known] = float(texts[row] @ mean / np.linalg.norm(mean))
    unit = TEMPERATURE * spread([list(cosines[row].values()) for row in others])
    expected = {
        row: log_share(cosines[row][label], list(cosines[row].values()), unit)
        for row, label in enumerate(labels)
        if label in cosines[row]
    }
    assert set(expected) == {0, 1, 2, 3, 4, 6}  # 5 and 7 are the only ones of their classes among the others
    assert dict(zip(rows.tolist(), values.tolist(), strict=True)) == pytest.approx(expected)


def test_a_graded_pair_is_compared_with_the_pairs_of_other_grades() -> None:
    grades = [0.0, 0.5, 0.5, 1.0]
    left, right = units(4), units(4)
    cosines = (left * right).sum(1)
    others = [0, 1, 3]
    cosines = (cosines - cosines[others].mean()) / cosines[others].std(ddof=1)
    measure = GradedPairs(list("abcd"), list("efgh"), torch.tensor(grades), 0.3)
    embeddings = torch.tensor(np.concatenate([3 * left, right]))  # lengths do not matter
    rows, values = measure.values(embeddings, torch.tensor([1, 2]), torch.tensor(others))
    expected = []
    for row in (1, 2):
        gaps = (cosines[3] - cosines[row], cosines[row] - cosines[0])
        expected.append(sum(math.log1p(math.exp(-gap / 0.3)) for gap in gaps) / 2)
    assert rows.tolist() == [1, 2]
    assert values.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_right_pair_is_ranked_among_the_wrong_ones() -> None:
    labels = [1, 0, 1, 0]
    left, right = units(4), units(4)
    cosines = (left * right).sum(1)
    cosines = (cosines - cosines.mean()) / cosines.std(ddof=1) / 0.2
    measure = LabelledPairs(list("abcd"), list("efgh"), torch.tensor(labels), 0.2)
    embeddings = torch.tensor(np.concatenate([left, right]))
    rows, values = measure.values(embeddings, torch.arange(4), torch.arange(4))
    expected = []
    for row in (0, 2):
        total = sum(math.exp(cosines[other]) for other in (row, 1, 3))
        expected.append(-math.log(math.exp(cosines[row]) / total))
    assert rows.tolist() == [0, 2]
    assert values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("grades", [torch.tensor([1, 1]), torch.tensor([0.5, 0.5])])
def test_pairs_of_one_grade_have_no_value(grades: torch.Tensor) -> None:
    kind = GradedPairs if grades.is_floating_point() else LabelledPairs
    measure = kind(["a", "b"], ["c", "d"], grades, TEMPERATURE)
    rows, _ = measure.values(torch.tensor(units(4)), torch.arange(2), torch.arange(2))
    assert rows.tolist() == []
    assert measure.usable == 0


def test_other_positives_of_an_anchor_are_not_its_negatives() -> None:
    anchors, positives, negatives = ["q", "q", "r"], ["a", "b", "a"], ["x", "y", "b"]
    measure = Ranking([anchors, positives, negatives], TEMPERATURE)
    assert measure.texts == [*anchors, "a", "b", "x", "y"]
    asked, found = units(3), units(4)
    cosines = asked @ found.T
    embeddings = torch.tensor(np.concatenate([asked, found]))
    rows, values = measure.values(embeddings, torch.arange(3), torch.arange(3))
    expected = [
        log_share(cosines[0, 0], cosines[0, [0, 2, 3]].tolist()),
        log_share(cosines[1, 1], cosines[1, [1, 2, 3]].tolist()),
        log_share(cosines[2, 0], cosines[2].tolist()),
    ]
    assert rows.tolist() == [0, 1, 2]
    assert values.tolist() == pytest.approx(expected)


def test_reranking_looks_at_the_candidates_of_each_question() -> None:
    columns = [["q", "q", "r"], ["a", "b", "a"], ["x", "y", "z"]]
    measure = Reranking(columns, TEMPERATURE)
    assert measure.count == 2
    asked, found = units(2), units(5)
    embeddings = torch.tensor(np.concatenate([asked, found]))
    place = {text: row for row, text in enumerate(measure.texts[2:])}
    cosines = {
        question: {text: float(asked[row] @ found[place[text]]) for text in texts}
        for row, (question, texts) in enumerate({"q": "abxy", "r": "az"}.items())
    }
    rows, values = measure.values(embeddings, torch.tensor([1, 0]), torch.arange(2))
    unit = TEMPERATURE * spread([list(of_question.values()) for of_question in cosines.values()])
    q, r = cosines["q"], cosines["r"]
    first = [log_share(q[text], [q[text], q["x"], q["y"]], unit) for text in "ab"]
    assert rows.tolist() == [1, 0]
    expected = [log_share(r["a"], [r["a"], r["z"]], unit), sum(first) / 2]
    assert values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("similarity", "compare"),
    [
        ("dot", lambda asked, text: float(asked @ text)),
        ("euclidean", lambda asked, text: -float(np.linalg.norm(asked - text))),
        ("manhattan", lambda asked, text: -float(np.abs(asked - text).sum())),
    ],
)
def test_a_ranking_is_by_the_similarity_of_the_model(
    similarity: str, compare: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    measure = Ranking([["q", "r"], ["a", "b"], ["x", "x"]], TEMPERATURE, similarity)
    embeddings = RNG.normal(size=(5, 6)) * RNG.uniform(1, 9, size=(5, 1))
    similarities = [[compare(embeddings[row], embeddings[2 + text]) for text in range(3)] for row in range(2)]
    unit = TEMPERATURE * spread(similarities)
    expected = [log_share(similarities[row][row], similarities[row], unit) for row in range(2)]
    for scale in (1.0, 30.0):  # an order knows no scale
        _, values = measure.values(torch.tensor(scale * embeddings), torch.arange(2), torch.arange(2))
        assert values.tolist() == pytest.approx(expected)


def test_spreading_all_texts_alike_does_not_rerank_them_better() -> None:
    texts = units(8)
    measure = Reranking([["q", "r"], ["a", "b"], ["v", "w"], ["x", "y"]], 1.0)
    in_a_cone = np.concatenate([texts, np.full((len(texts), 1), 3.0)], 1)  # the same order, cosines near 1
    values = [float(measure.value(torch.tensor(rows))) for rows in (texts, in_a_cone)]
    assert values[1] == pytest.approx(values[0], rel=1e-9)


def test_values_have_finite_slopes() -> None:
    embeddings = torch.tensor(units(8)).requires_grad_(True)
    measure = ClassMeans([str(row) for row in range(8)], torch.tensor([0, 0, 0, 1, 1, 2, 2, 3]), TEMPERATURE)
    measure.value(embeddings).backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert float(embeddings.grad.abs().max()) > 0
