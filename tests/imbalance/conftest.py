"""Synthetic images that a small network can learn in a few dozen steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def _extra() -> None:
    """Without the extra the whole room is skipped, visibly."""
    pytest.importorskip("imblearn", reason="needs the extra `imbalance`")


def make_images(count: int, seed: int, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """`count` noisy 28×28 images per class; class c has a bright bar at a place of its own."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    images = rng.integers(0, 120, (len(labels), 28, 28))
    for index, label in enumerate(labels):
        row = 2 + 5 * (label % 5)
        columns = slice(2, 13) if label < 5 else slice(15, 26)
        images[index, row : row + 3, columns] += 110
    return images.astype(np.uint8), labels.astype(np.int64)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images.npz: 60 training and 20 test images of each of 10 classes."""
    folder = tmp_path_factory.mktemp("synthetic")
    (x_train, y_train), (x_test, y_test) = make_images(60, 0), make_images(20, 1)
    np.savez(folder / "images.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder
