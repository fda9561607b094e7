"""A tiny study of class imbalance, its images and records, and calls of its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from click.testing import CliRunner

from selfpos.imbalance.command import command
from selfpos.imbalance.study import grid
from selfpos.imbalance.study.data import read_images
from selfpos.imbalance.study.recipe import ImbalanceRecipe

RECIPES = Path(__file__).parents[2] / "recipes" / "imbalance"
STEP = {"profile": "step", "rho": [10], "mu": [0.5]}


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


def tiny(archive: Path, **changes: object) -> dict[str, Any]:
    """The settings of a study that trains in a second on the images of `archive`."""
    size = {"n_max": 40, "validation": 10, "seeds": 2, "networks_at_once": 2}
    training = {"iterations": 12, "batch_size": 16, "learning_rates": [0.01], "second_iterations": 5}
    study = {"name": "tiny", "data": str(archive), "network": "lenet", "grid": [STEP], "training": training}
    return study | size | changes


def tiny_recipe(archive: Path, **changes: object) -> ImbalanceRecipe:
    """The same as a recipe."""
    return ImbalanceRecipe.model_validate(tiny(archive, **changes))


def write_tiny(file: Path, archive: Path, **changes: object) -> Path:
    """The same as a recipe file."""
    file.write_text(yaml.safe_dump(tiny(archive, **changes)), encoding="utf-8")
    return file


def run_study(recipe: ImbalanceRecipe, out: Path, data: Path | None = None, workers: int = 1) -> int:
    """`grid.run_grid` on the CPU, on the recipe's images or on those of `data`."""
    images = read_images(str(data or recipe.data), preprocessing=recipe.preprocessing)
    return grid.run_grid(recipe, out, images, torch.device("cpu"), workers)


def imbalance(*words: object) -> str:
    """The output of `selfpos imbalance` with `words`, in this process; its errors are raised."""
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False).output


def record(method: str, auc: float, seed: int, **changes: object) -> dict[str, Any]:
    """What a study records of a network, as far as claims and figures read it."""
    base = {"profile": "step", "rho": 10.0, "mu": 0.5, "minority_rule": "random", "method": method}
    base |= {"rule": "plain", "rate": 0.01, "seed": seed, "curve": []}
    scores = dict.fromkeys(("auc", "accuracy", "validation_auc", "minority", "majority"), auc)
    return base | scores | changes
