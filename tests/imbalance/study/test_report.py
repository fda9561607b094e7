"""What the figures show of a study that is not whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure

from selfpos.imbalance.study import report
from selfpos.imbalance.study.analysis import Study
from tests.helpers.companion import record


def study_of(*cells: tuple[float, str]) -> Study:
    """Step imbalance with ρ = 10: one record for each share of minority classes and method."""
    return Study(
        record(method, 0.8, 0, mu=mu, rule=rule) for mu, method in cells for rule in ("plain", "original")
    )


@pytest.mark.parametrize("draw", [report.FIGURES["figure-3-step"], report.thresholding])
def test_methods_of_any_panel_are_in_the_legend(draw: Callable[[Study, Figure], bool]) -> None:
    figure = Figure()
    assert draw(study_of((0.2, "baseline"), (0.5, "baseline"), (0.5, "ros")), figure)
    assert {"baseline", "ros"} <= {text.get_text() for text in figure.legends[0].get_texts()}


@pytest.mark.parametrize("draw", report.FIGURES.values(), ids=report.FIGURES)
def test_a_figure_without_a_line_is_not_drawn(draw: Callable[[Study, Figure], bool]) -> None:
    assert not draw(study_of((0.5, "focal")), Figure())


def test_curves_are_drawn_of_the_methods_that_have_them() -> None:
    groups = ("balanced", "minority", "majority")
    names = [f"{split}_{group}" for split in ("train", "test") for group in groups]
    curve = [{"iteration": iteration} | dict.fromkeys(names, 0.9) for iteration in range(4)]
    other = [record("weighted", 0.9, seed, curve=curve) for seed in range(2)]
    assert not report.curves(Study([*other, record("ros", 0.9, 0)]), Figure())
    assert report.curves(Study([*other, record("ros", 0.9, 0, curve=curve)]), Figure())
