from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfpos.errors import SelfposError
from selfpos.imbalance.study.sampling import (
    check_available,
    class_order,
    class_permutations,
    class_sizes,
    sizes_by_class,
    subset,
)


def test_totals_of_the_paper() -> None:
    assert class_sizes("step", 10, 5000, 10, 0.5).sum() == 27_500
    assert class_sizes("step", 10, 5000, 2, 0.9).sum() == 27_500
    assert class_sizes("linear", 10, 5000, 10).tolist() == list(range(500, 5001, 500))
    assert class_sizes("linear", 10, 5000, 5000).tolist() == [
        1,
        556,
        1112,
        1667,
        2223,
        2778,
        3334,
        3889,
        4445,
        5000,
    ]
    assert class_sizes("linear", 10, 5000, 5000).sum() == 25_005
    for mu, rho, total in [(0.1, 10, 910_000), (0.8, 50, 216_000), (0.9, 100, 109_000)]:
        assert class_sizes("step", 1000, 1000, rho, mu).sum() == total


@pytest.mark.parametrize(
    ("rho", "smallest"),
    [
        (2, 2500),
        (10, 500),
        (20, 250),
        (25, 200),
        (50, 100),
        (100, 50),
        (250, 20),
        (500, 10),
        (1000, 5),
        (2500, 2),
        (5000, 1),
    ],
)
def test_smallest_class(rho: float, smallest: int) -> None:
    assert class_sizes("step", 10, 5000, rho, 0.5).min() == smallest


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
    with pytest.raises(SelfposError, match="has 50 training examples, but needs 45 and 10"):
        check_available(np.bincount(labels), np.full(10, 45), 10)


def test_who_is_minority() -> None:
    assert class_order("lowest", 4, 9).tolist() == [0, 1, 2, 3]
    assert sorted(class_order("random", 10, 9)) == list(range(10))
    assert (class_order("random", 10, 1) != class_order("random", 10, 2)).any()
    scarce = class_order("random", 10, 1, np.array([3, 7]))
    assert set(scarce[:2]) == {3, 7}
    assert scarce[2:].tolist() == [label for label in class_order("random", 10, 1) if label not in (3, 7)]
