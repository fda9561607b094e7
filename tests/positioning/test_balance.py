"""Several losses as one value."""

from __future__ import annotations

import math

import pytest

from selfpos.errors import SelfposError
from selfpos.positioning.balance import Balance, check_ratios

LOSSES = {"sts": 3000.0, "retrieval": 0.2}
BASE = {"sts": 4000.0, "retrieval": 0.4}
BEST = {"sts": 2000.0, "retrieval": 0.39}


def test_normalised_means() -> None:
    assert Balance().value(LOSSES) == pytest.approx(1500.1)
    assert Balance("base", base=BASE).value(LOSSES) == pytest.approx((0.75 + 0.5) / 2)
    # half of the first specialist's gain is missing; the second gains too little to serve as a unit, so .05 · .4 does
    assert Balance("gain", base=BASE, specialist=BEST).value(LOSSES) == pytest.approx(
        (0.5 + (0.2 - 0.39) / 0.02) / 2
    )


def test_ratios_weigh_and_a_single_task_counts_alone() -> None:
    balance = Balance("base", ratios={"sts": 3.0}, base=BASE)
    assert balance.value(LOSSES) == pytest.approx((3 * 0.75 + 0.5) / 4)
    assert balance.value({"retrieval": 0.2}) == pytest.approx(0.5)


def test_the_worst_task_rules() -> None:
    value = Balance("base", "worst", base=BASE).value(LOSSES)
    assert value == pytest.approx(math.log(0.5 * math.exp(7.5) + 0.5 * math.exp(5)) / 10)


def test_uncertainty_does_not_see_units() -> None:
    balance = Balance("none", "uncertainty", base=BASE)
    scaled = Balance("none", "uncertainty", base={"sts": 4.0, "retrieval": 0.4})
    difference = balance.value(LOSSES) - balance.value({"sts": 3500.0, "retrieval": 0.3})
    assert difference == pytest.approx(
        scaled.value({"sts": 3.0, "retrieval": 0.2}) - scaled.value({"sts": 3.5, "retrieval": 0.3})
    )


def test_a_ratio_for_no_task() -> None:
    with pytest.raises(SelfposError, match=r"names the task 'retreival'.*did you mean 'retrieval'"):
        check_ratios({"retreival": 1.0}, BASE)
