"""Intervals, ranks and corrections against closed forms, definitions and simulations."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp

from selfpos.scores.examples import Examples, resamples, score_of
from selfpos.scores.intervals import Difference, borda_ranks, estimate, holm


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_bonferroni_closed_over_all_intersections(p: list[float]) -> None:
    """An adjusted value is the largest Bonferroni value of any set of hypotheses that the one is in."""
    closed = [
        max(
            min(1.0, len(s) * min(p[j] for j in s))
            for size in range(1, len(p) + 1)
            for s in combinations(range(len(p)), size)
            if i in s
        )
        for i in range(len(p))
    ]
    assert holm(p) == pytest.approx(closed)


def test_borda_counts_the_models_beaten() -> None:
    scores = {"a": [3.0, 1.0, 2.0], "b": [2.0, 2.0, 2.0], "c": [1.0, 3.0, 0.0], "d": [0.0, 0.0, 1.0]}
    points = {
        m: sum(
            (x > y) + (x == y) / 2
            for n, other in scores.items()
            if n != m
            for x, y in zip(scores[m], other, strict=True)
        )
        for m in scores
    }
    assert points == {"a": 6.5, "b": 6.5, "c": 4.0, "d": 1.0}
    expected = {m: 1 + sum(other > own for other in points.values()) for m, own in points.items()}
    assert borda_ranks(scores) == expected
    assert borda_ranks({}) == {}


def test_intervals_over_examples_cover_the_truth() -> None:
    """Two models answer 150 queries; the true difference is known.

    95 % intervals must hold it in about 95 of 100 worlds.
    """
    rng = np.random.default_rng(5)
    worlds, queries, gain = 400, 150, 0.03
    held, wrongly = 0, 0
    for world in range(worlds):
        hardness = rng.beta(2, 2, queries)
        noise = rng.normal(0, 0.1, (2, queries))
        values = np.stack([hardness + noise[0], hardness + gain + noise[1]])
        parts = [Examples("", "", "mean", queries, "", {"values": row}) for row in values]
        drawn = resamples(parts, 400, seed=world)
        found = estimate(drawn[:, 1] - drawn[:, 0], (values[1] - values[0]).mean(keepdims=True), 0.0)
        assert found.low is not None and found.high is not None
        held += found.low <= gain <= found.high
        wrongly += found.high < 0
    assert 0.92 <= held / worlds <= 0.98  # 0.95 ± 2.8 standard errors
    assert wrongly == 0


def test_intervals_of_a_correlation_cover_the_truth() -> None:
    """Spearman is no mean: the same for the difference of two correlations whose true values are equal."""
    rng = np.random.default_rng(6)
    worlds, pairs = 200, 120
    held = 0
    for world in range(worlds):
        gold = rng.normal(size=pairs)
        parts = [
            Examples("", "", "spearman", pairs, "", {"scores": gold + rng.normal(size=pairs), "gold": gold})
            for _ in range(2)
        ]
        drawn = resamples(parts, 300, seed=world)
        found = estimate(drawn[:, 1] - drawn[:, 0], np.array([score_of(parts[1]) - score_of(parts[0])]), 0.0)
        assert found.low is not None and found.high is not None
        held += found.low <= 0 <= found.high
    assert 0.90 <= held / worlds <= 0.985


def test_intervals_over_seeds_and_examples_cover_the_truth() -> None:
    """Three seeds only, each with an effect of its own as large as the noise of the examples."""
    rng = np.random.default_rng(7)
    worlds, queries, seeds = 400, 100, 3
    held = 0
    for world in range(worlds):
        shared = rng.normal(0, 0.2, queries)
        values = shared + rng.normal(0, 0.02, (seeds, 1)) + rng.normal(0, 0.1, (seeds, queries))
        drawn = resamples(
            [Examples("", "", "mean", queries, "", {"values": row}) for row in values], 300, seed=world
        ).mean(1)
        found = estimate(drawn, values.mean(1), 0.0)
        assert found.low is not None and found.high is not None
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / worlds <= 0.995


def test_over_one_seed_the_interval_is_that_of_the_resamples() -> None:
    """Resamples that are normal; the p is that of the test over the examples."""
    draws = np.random.default_rng(3).normal(0.02, 0.01, 400_000)
    found = estimate(draws, np.array([0.02]), 0.04, alpha=0.1)
    assert (found.low, found.high) == pytest.approx(norm.interval(0.9, 0.02, 0.01), abs=2e-4)
    assert found.p == 0.04
    # as with measures that examples drawn twice raise
    biased = estimate(draws + 0.05, np.array([0.02]), 0.04, alpha=0.1)
    assert (biased.low, biased.high) == pytest.approx((found.low, found.high), abs=1e-4)
    assert estimate(draws, np.array([0.02]), 0.3, alpha=0.1).low == 0.0


def test_where_examples_do_not_matter_seeds_are_a_t_test() -> None:
    by_seed = np.array([0.02, 0.05, 0.01, 0.04])
    found = estimate(np.full(500, by_seed.mean()), by_seed, 0.0)
    plain = ttest_1samp(by_seed, 0)
    assert found.p == pytest.approx(plain.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval(0.95)))


def test_a_difference_the_other_way_round_swaps_the_ends_of_its_interval() -> None:
    difference = Difference(0.25, 0.125, 0.5, p=0.01, adjusted=0.02, alpha=0.1)
    assert -difference == Difference(-0.25, -0.5, -0.125, p=0.01, adjusted=0.02, alpha=0.1)
    assert -Difference(0.25) == Difference(-0.25)


def test_equal_models() -> None:
    assert estimate(np.zeros(100), np.zeros(3), 0.0).p == 1.0


def test_students_interval_is_scipys() -> None:
    from scipy.stats import t

    from selfpos.scores.intervals import student_interval

    values = np.random.default_rng(3).normal(size=7)
    expected = t.interval(0.95, 6, values.mean(), values.std(ddof=1) / np.sqrt(7))
    assert student_interval(values) == pytest.approx(expected)
