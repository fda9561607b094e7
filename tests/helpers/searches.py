"""The searches beside the default one, as the command line takes them, and what each must have written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.adapters import state

OTHER_SEARCHES: dict[str, list[Any]] = {
    "--steps": ["self-positioning", "--steps", 12, "--param", "learning_rate=0.1"],
    "layer-wise": ["layer-wise", "--steps", 12],
    "lm-cocktail": ["lm-cocktail"],
    "cma-es": ["cma-es", "--param", "evaluations=12"],
}


def assert_is_position(out: Path, base: Path, sources: Sequence[Path]) -> dict[str, Any]:
    """The weights at `out` must be θ0 + Σ c_i V_i with the coefficients of its manifest.

    Returns the position of the manifest.
    """
    position: dict[str, Any] = json.loads((out / "selfpos.json").read_text())["positioning"]
    start, tuned = state(base), [state(source) for source in sources]
    rows = position.get("tensors") or dict.fromkeys(start, position["coefficients"])
    for key, value in state(out).items():
        moved = sum(c * (t[key] - start[key]) for c, t in zip(rows[key], tuned, strict=True))
        np.testing.assert_allclose(value, start[key] + moved, atol=2e-6, err_msg=key)
    return position
