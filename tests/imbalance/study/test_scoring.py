from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from selfpos.imbalance.study.scoring import (
    best_tau,
    class_recalls,
    decision_scores,
    divide_by_prior,
    one_vs_rest_auc,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans(), classes=st.integers(3, 7))
def test_auc_is_scikit_learns(seed: int, ties: bool, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=60)])
    logits = rng.normal(size=(len(labels), classes)) + 2 * np.eye(classes)[labels]
    probabilities = softmax(np.round(logits) if ties else logits)
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert one_vs_rest_auc(probabilities, labels).mean() == pytest.approx(expected, abs=1e-12)
    scores = decision_scores(probabilities, labels, np.array([0]))
    assert scores["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, probabilities.argmax(axis=1))
    )
    assert scores["minority"] == scores["recalls"][0]
    assert scores["majority"] == pytest.approx(np.mean(scores["recalls"][1:]))


def test_a_dead_network_has_auc_one_half() -> None:
    labels = np.repeat(np.arange(4), 5)
    assert one_vs_rest_auc(np.full((20, 4), -np.log(4)), labels).tolist() == [0.5] * 4


def test_thresholding_golden_example() -> None:
    # The first author's example: counts 100, 400, 500 and output .2, .2, .6 give 2, .5, 1.2, which turns
    # class 2 into class 0.
    adjusted = np.exp(divide_by_prior(np.log([[0.2, 0.2, 0.6]]), np.array([100, 400, 500])))
    np.testing.assert_allclose(adjusted, [[2.0, 0.5, 1.2]])
    assert adjusted.argmax() == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_post_hoc_logit_adjustment_is_thresholding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, counts = rng.normal(size=(50, 6)) * 3, rng.integers(1, 500, size=6)
    probabilities = softmax(logits)
    thresholded = probabilities / (counts / counts.sum())
    menon = logits - 1.0 * np.log(counts / counts.sum())
    assert (divide_by_prior(np.log(probabilities), counts).argmax(axis=1) == thresholded.argmax(axis=1)).all()
    assert (menon.argmax(axis=1) == thresholded.argmax(axis=1)).all()


def test_auc_does_not_see_an_unnormalised_prior() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(3, size=90), np.log(softmax(rng.normal(size=(90, 3))))
    shifted = divide_by_prior(scores, np.array([1, 10, 100]))
    np.testing.assert_allclose(one_vs_rest_auc(shifted, labels), one_vs_rest_auc(scores, labels), atol=1e-12)


def test_best_tau_undoes_a_prior() -> None:
    rng = np.random.default_rng(0)
    labels, counts = np.repeat(np.arange(3), 400), np.array([10, 100, 1000])
    calibrated = np.log(softmax(rng.normal(size=(1200, 3)) + 2 * np.eye(3)[labels]))
    biased = calibrated + np.log(counts / counts.sum())
    tau = best_tau(biased, labels, counts)
    assert 0.7 <= tau <= 1.3
    assert (
        class_recalls(divide_by_prior(biased, counts, tau), labels).mean()
        > class_recalls(biased, labels).mean() + 0.1
    )
