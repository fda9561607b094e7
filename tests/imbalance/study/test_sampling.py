"""Class sizes and minorities, resampling, and the streams of batches."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfpos.errors import SelfposError
from selfpos.imbalance.study.methods import METHODS, get_method
from selfpos.imbalance.study.sampling import (
    class_balanced_stream,
    class_order,
    class_permutations,
    class_sizes,
    oversample,
    sizes_by_class,
    stream,
    subset,
    undersample,
)

LABELS = np.repeat(np.arange(4), [40, 4, 20, 1])


def test_full_sampling_balances() -> None:
    over, under = oversample(LABELS, 0), undersample(LABELS, 0)
    assert np.bincount(LABELS[over]).tolist() == [40] * 4
    assert set(over.tolist()) == set(range(len(LABELS)))  # every original stays
    assert np.bincount(LABELS[under]).tolist() == [1] * 4
    assert len(set(under.tolist())) == len(under)


def test_partial_sampling_reaches_the_ratio() -> None:
    assert np.bincount(LABELS[oversample(LABELS, 0, 4)]).tolist() == [40, 10, 20, 10]
    assert np.bincount(LABELS[undersample(LABELS, 0, 4)]).tolist() == [4, 4, 4, 1]
    assert np.array_equal(oversample(LABELS, 5, 4), oversample(LABELS, 5, 4))
    assert not np.array_equal(oversample(LABELS, 5), oversample(LABELS, 6))


def test_streams_draw_equally_often() -> None:
    indices = np.arange(100, 110)
    drawn = np.concatenate(list(islice(stream(indices, 64, seed=1), 10)))
    assert len(drawn) == 640
    assert np.bincount(drawn - 100).tolist() == [64] * 10


def test_class_balanced_stream_is_uniform_over_classes() -> None:
    drawn = np.concatenate(
        list(islice(class_balanced_stream(np.arange(len(LABELS)), LABELS, 50, seed=0), 200))
    )
    shares = np.bincount(LABELS[drawn]) / len(drawn)
    assert np.abs(shares - 0.25).max() < 0.02
    assert len(set(drawn.tolist())) == len(LABELS)


def test_methods_by_name() -> None:
    names = "baseline ros rus two-phase-ros two-phase-rus ldam-drw crt ncm smote"
    assert set(names.split()) <= set(METHODS)
    assert get_method("ros:100").ratio == 100
    assert get_method("two-phase-rus").parent == "rus"
    ratio = "a number of 1 or more"
    faults = {"rsu": "did you mean 'rus'", "baseline:10": "only ros:R and rus:R", "ros:x": ratio}
    for name, words in faults.items():
        with pytest.raises(SelfposError, match=words):
            get_method(name)


def test_totals_of_the_paper() -> None:
    assert class_sizes("step", 10, 5000, 10, 0.5).sum() == 27_500
    assert class_sizes("step", 10, 5000, 2, 0.9).sum() == 27_500
    assert class_sizes("linear", 10, 5000, 10).tolist() == list(range(500, 5001, 500))
    ascending = [1, 556, 1112, 1667, 2223, 2778, 3334, 3889, 4445, 5000]
    assert class_sizes("linear", 10, 5000, 5000).tolist() == ascending
    assert class_sizes("linear", 10, 5000, 5000).sum() == 25_005
    for mu, rho, total in [(0.1, 10, 910_000), (0.8, 50, 216_000), (0.9, 100, 109_000)]:
        assert class_sizes("step", 1000, 1000, rho, mu).sum() == total


def test_smallest_class() -> None:
    expected = {2: 2500, 10: 500, 20: 250, 25: 200, 50: 100, 100: 50}
    expected |= {250: 20, 500: 10, 1000: 5, 2500: 2, 5000: 1}
    assert {rho: class_sizes("step", 10, 5000, rho, 0.5).min() for rho in expected} == expected


def test_exponential_profile_is_the_long_tail_literatures() -> None:
    # LDAM's code: img_max * imb_factor ** (class / (classes - 1)), cut to integers; ours is rounded.
    theirs = [5000 * 0.01 ** (i / 9) for i in range(10)]
    assert np.abs(class_sizes("exp", 10, 5000, 100)[::-1] - theirs).max() <= 0.5


@given(
    classes=st.integers(2, 200),
    rho=st.floats(1, 5000),
    n_max=st.integers(1, 5000),
    profile=st.sampled_from(["linear", "exp"]),
)
def test_profiles_ascend_between_their_ends(classes: int, rho: float, n_max: int, profile: str) -> None:
    sizes = class_sizes(profile, classes, n_max, rho)  # type: ignore[arg-type]
    assert (np.diff(sizes) >= 0).all()
    assert sizes[-1] == n_max
    assert sizes[0] == max(round(n_max / rho), 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("step", 10, 100, 10, 0.01),
        ("step", 10, 100, 0.5, 0.5),
        ("step", 10, 100, float("nan"), 0.5),
        ("step", 10, 100, 10, float("nan")),
        ("linear", 1, 100, 10),
    ],
)
def test_impossible_profiles_are_refused(arguments: tuple) -> None:
    with pytest.raises(SelfposError):
        class_sizes(*arguments)


def test_minorities_and_subsets_are_nested() -> None:
    labels = np.repeat(np.arange(10), 50)
    order = class_order("random", 10, seed=3)
    permutations = class_permutations(labels, 10, seed=3)
    picks = []
    for rho in (1, 5, 25):
        counts = sizes_by_class(class_sizes("step", 10, 40, rho, 0.3), order)
        picks.append(set(subset(permutations, counts).tolist()))
        assert np.bincount(labels[list(picks[-1])]).tolist() == counts.tolist()
        if rho > 1:
            assert np.flatnonzero(counts == counts.min()).tolist() == sorted(order[:3])
    assert picks[2] < picks[1] < picks[0]


def test_who_is_minority() -> None:
    assert class_order("lowest", 4, 9).tolist() == [0, 1, 2, 3]
    assert sorted(class_order("random", 10, 9)) == list(range(10))
    assert (class_order("random", 10, 1) != class_order("random", 10, 2)).any()
    scarce = class_order("random", 10, 1, np.array([3, 7]))
    assert set(scarce[:2]) == {3, 7}
    assert scarce[2:].tolist() == [label for label in class_order("random", 10, 1) if label not in (3, 7)]
