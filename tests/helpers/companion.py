"""A tiny study of class imbalance."""

from __future__ import annotations

from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes" / "imbalance"


def tiny(archive: Path, **changes: object) -> dict:
    return {
        "name": "tiny", "data": str(archive), "network": "lenet", "n_max": 40, "validation": 10, "seeds": 2,
        "networks_at_once": 2,
        "grid": [{"profile": "step", "rho": [10], "mu": [0.5]}],
        "training": {"iterations": 12, "batch_size": 16, "learning_rates": [0.01], "second_iterations": 5},
    } | changes  # fmt: skip
