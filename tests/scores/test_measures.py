"""Resampled scores against the plain way: gather the drawn examples and ask scipy or scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, f1_score, v_measure_score

from selfpos.scores.examples import Examples, measure_of, resamples, score_of


def part(kind: str, count: int, **arrays: np.ndarray) -> Examples:
    return Examples("test", "default", kind, count, "key", arrays)


def weighted(made: Examples, chosen: np.ndarray) -> float:
    return float(measure_of(made)(np.bincount(chosen, minlength=made.count)[None].astype(float))[0])


PLAIN: dict[str, Callable[..., float]] = {
    "mean": lambda a, c: a["values"][c].mean(),
    "spearman": lambda a, c: spearmanr(a["scores"][c], a["gold"][c]).statistic,
    "pearson": lambda a, c: pearsonr(a["scores"][c], a["gold"][c]).statistic,
    "average-precision": lambda a, c: average_precision_score(a["gold"][c], a["scores"][c]),
}


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(PLAIN)),
    seed=st.integers(0, 10**6),
    count=st.integers(5, 60),
    ties=st.booleans(),
)
def test_weights_give_what_the_drawn_examples_give(kind: str, seed: int, count: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=count)
    gold = rng.integers(2, size=count) if kind == "average-precision" else rng.normal(size=count)
    if ties:
        scores, gold = scores.round(), gold.round()
    arrays = {"values": scores} if kind == "mean" else {"scores": scores, "gold": gold}
    chosen = rng.integers(count, size=count)
    if kind != "mean" and (len(set(gold[chosen])) < 2 or len(set(scores[chosen])) < 2):
        return  # nothing varies, and the plain measure is not defined
    assert weighted(part(kind, count, **arrays), chosen) == pytest.approx(
        PLAIN[kind](arrays, chosen), abs=1e-10
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), experiments=st.integers(1, 4), labels=st.integers(1, 12))
def test_macro_f1_of_drawn_texts_counts_the_labels_that_are_left(
    seed: int, experiments: int, labels: int
) -> None:
    rng = np.random.default_rng(seed)
    gold, predicted = rng.integers(labels, size=20), rng.integers(labels, size=(experiments, 20))
    chosen = rng.integers(20, size=20)
    wanted = np.mean(
        [f1_score(gold[chosen], one[chosen], average="macro", zero_division=0) for one in predicted]
    )
    assert weighted(part("macro-f1", 20, gold=gold, predicted=predicted), chosen) == pytest.approx(
        wanted, abs=1e-10
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), draws=st.integers(1, 4))
def test_v_measure_of_drawn_documents(seed: int, draws: int) -> None:
    rng = np.random.default_rng(seed)
    documents, size = 20, 30
    index = rng.integers(documents, size=(draws, size))
    of_document = rng.integers(4, size=documents)
    labels, clusters = of_document[index], rng.integers(3, 7, size=(draws, size))
    made = part("v-measure", documents, index=index, labels=labels, clusters=clusters)
    assert score_of(made) == pytest.approx(
        np.mean([v_measure_score(a, b) for a, b in zip(labels, clusters, strict=True)]), abs=1e-10
    )
    counts = np.bincount(rng.integers(documents, size=documents), minlength=documents)
    again = [np.repeat(np.arange(size), counts[drawn]) for drawn in index]
    plain = np.mean([v_measure_score(labels[d][rows], clusters[d][rows]) for d, rows in enumerate(again)])
    assert measure_of(made)(counts[None].astype(float))[0] == pytest.approx(plain, abs=1e-10)


def test_resamples_spread_as_theory_says_and_are_paired() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=400)
    one, two = part("mean", 400, values=values), part("mean", 400, values=values + 0.5)
    found = resamples([one, two], 4000, seed=0)
    assert found.shape == (4000, 2)
    assert found[:, 0].std() == pytest.approx(values.std() / 20, rel=0.05)
    assert np.allclose(found[:, 1] - found[:, 0], 0.5)  # the same examples were drawn for both
    assert np.array_equal(found, resamples([one, two], 4000, seed=0))
    assert not np.array_equal(found, resamples([one, two], 4000, seed=1))
