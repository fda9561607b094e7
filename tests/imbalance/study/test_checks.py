"""What cannot be trained or scored is refused before anything is trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.errors import SelfposError
from selfpos.imbalance.study import grid
from selfpos.imbalance.study.data import ArrayImages, ImageData
from selfpos.imbalance.study.grid import plan
from selfpos.imbalance.study.unit import check_study
from tests.helpers.companion import STEP, make_images, run_study, tiny_recipe


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "run_unit", lambda *_, **__: pytest.fail("something was trained"))


def write_archive(folder: Path, *, without_test: int | None = None, colours: bool = False) -> Path:
    (x_train, y_train), (x_test, y_test) = make_images(60, 0), make_images(20, 1)
    if colours:
        x_train, x_test = (np.repeat(images[..., None], 3, axis=3) for images in (x_train, x_test))
    chosen = y_test != without_test
    np.savez(
        folder / "images.npz", x_train=x_train, y_train=y_train, x_test=x_test[chosen], y_test=y_test[chosen]
    )
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": [STEP, STEP | {"mu": [0.01]}]}, r"mu 0\.01 leaves 0 of 10 classes in the minority"),
        (
            {"n_max": 55},
            r"step ρ=10 μ=0\.5 cannot be drawn from .*: class \d has 60 training examples, but needs 55",
        ),
    ],
)
def test_a_grid_its_data_cannot_fill(archive: Path, tmp_path: Path, changes: dict, message: str) -> None:
    recipe = tiny_recipe(archive, **changes)
    with pytest.raises(SelfposError, match=message):
        run_study(recipe, tmp_path / "r.parquet")


def test_a_test_set_without_a_class(tmp_path: Path) -> None:
    recipe = tiny_recipe(write_archive(tmp_path, without_test=9))
    with pytest.raises(SelfposError, match="has no test examples of class 9, which the AUC needs"):
        run_study(recipe, tmp_path / "r.parquet")


def test_images_that_the_network_does_not_take(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SelfposError, match=r"network all-cnn does not take the images of .*, 28×28 with 1 channel$"
    ):
        run_study(tiny_recipe(archive, network="all-cnn"), tmp_path / "r.parquet")
    with pytest.raises(
        SelfposError, match=r"network lenet does not take the images of .*, 28×28 with 3 channels$"
    ):
        run_study(tiny_recipe(write_archive(tmp_path, colours=True)), tmp_path / "r.parquet")


@pytest.mark.parametrize("method", ["rus", "two-phase-ros", "smote"])
def test_a_missing_library(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setitem(sys.modules, "imblearn", None)
    with pytest.raises(
        SelfposError,
        match=r"(rus|ros|smote) needs the package imbalanced-learn: pip install 'selfpos\[imbalance\]'",
    ):
        run_study(tiny_recipe(archive, methods=["baseline", method]), tmp_path / "r.parquet")


def test_tokens_are_not_mixed(archive: Path) -> None:
    labels = np.repeat(np.arange(10), 60)
    tokens = ArrayImages(torch.zeros(len(labels), 2, 1, 4), labels)
    data = ImageData(
        tokens,
        tokens,
        [str(label) for label in range(10)],
        "texts",
        lambda seed: pytest.fail("a network was built"),
    )
    recipe = tiny_recipe(archive, network="encoder", encoder="any", methods=["baseline", "remix"])
    check_study(plan(recipe)[:1], recipe, data)
    with pytest.raises(SelfposError, match="method remix mixes images; network encoder takes tokens"):
        check_study(plan(recipe), recipe, data)
