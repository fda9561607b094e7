"""Intervals over the seeds of a study."""

from __future__ import annotations

import numpy as np
import pytest

from selfpos.imbalance.study.analysis import interval, paired_bootstrap


def test_intervals() -> None:
    from scipy import stats

    values = [1.0, 2.0, 4.0, 4.5]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    result = interval(values)
    assert (result.mean, result.low, result.high) == pytest.approx((np.mean(values), low, high))
    assert interval([3.0]).low == -np.inf
    pairs = np.random.default_rng(1).normal(1, 2, 400)
    assert paired_bootstrap(pairs.tolist()).low == pytest.approx(interval(pairs).low, abs=0.03)


def test_bootstrap_of_five_pairs_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    result = [paired_bootstrap(rng.normal(size=5).tolist(), draws=500, seed=trial) for trial in range(600)]
    assert 0.93 < np.mean([drawn.low <= 0 <= drawn.high for drawn in result]) < 0.98
    assert (paired_bootstrap([3.0]).low, paired_bootstrap([3.0]).high) == (-np.inf, np.inf)
    assert (paired_bootstrap([0.4] * 5).low, paired_bootstrap([0.4] * 5).high) == pytest.approx((0.4, 0.4))
