from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.imbalance.analysis import Interval
from selfpos.imbalance.cell import Imbalance
from selfpos.imbalance.compare.path import ALPHAS, PathResult, compare_path, interpolate
from selfpos.imbalance.networks import build
from selfpos.imbalance.recipe import ImbalanceRecipe
from selfpos.imbalance.sources import read_images
from tests.imbalance.test_grid import tiny


def test_interpolation_is_the_straight_line() -> None:
    first, second = build("lenet", 10, 0), build("lenet", 10, 1)
    middle = interpolate(first, second, 0.25)
    torch.testing.assert_close(middle.classifier.weight, 0.75 * first.classifier.weight + 0.25 * second.classifier.weight)
    assert torch.equal(interpolate(first, second, 0.0).classifier.weight, first.classifier.weight)
    assert torch.equal(interpolate(first, second, 1.0).classifier.weight, second.classifier.weight)


def test_path_end_to_end(archive: Path) -> None:
    recipe = ImbalanceRecipe.model_validate(tiny(archive, test_limit=8))
    data = read_images(str(archive), preprocessing="scale")
    found = compare_path(Imbalance("step", 10, 0.5, "random"), recipe, data, torch.device("cpu"))
    assert list(found.by_alpha) == list(ALPHAS)
    assert sorted(found.by_ratio)[0] == 1.0
    # The ends of the path are the baseline and ROS themselves.
    assert found.by_alpha[0.0] == found.by_ratio[10.0]
    assert found.by_alpha[1.0] == pytest.approx(found.by_ratio[1.0])
    picked = [
        found.by_alpha[a][s] - found.by_ratio[r][s] for s, (a, r) in enumerate(zip(found.chosen_alpha, found.chosen_ratio, strict=True))
    ]
    assert found.gain.mean == pytest.approx(np.mean(picked))


@pytest.mark.parametrize(("low", "high", "verdict"), [(-0.1, 0.3, "holds"), (-2.0, -1.0, "does not hold"), (-1.0, 0.5, "not decided")])
def test_path_verdicts(low: float, high: float, verdict: str) -> None:
    assert PathResult({}, {}, [], [], Interval((low + high) / 2, low, high, 5)).verdict == verdict
