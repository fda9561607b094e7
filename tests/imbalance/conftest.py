"""Synthetic images that a small network can learn in a few dozen steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.companion import make_images


@pytest.fixture(scope="session", autouse=True)
def _extra() -> None:
    """Without the extra the whole room is skipped, visibly."""
    pytest.importorskip("imblearn", reason="needs the extra `imbalance`")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.npz: 60 training and 20 test images of each of 10 classes."""
    folder = tmp_path_factory.mktemp("synthetic")
    (x_train, y_train), (x_test, y_test) = make_images(60, 0), make_images(20, 1)
    np.savez(folder / "images.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder
