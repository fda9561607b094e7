"""The default search on a live model; the searches beside it, as the command line takes them, and what each
must have written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from selfpos.positioning.draws import split_probe
from selfpos.positioning.linearised import LinearisedSearch
from selfpos.positioning.live import LiveModel
from selfpos.positioning.problem import Problem
from selfpos.positioning.trajectory import Trajectory
from selfpos.recipe import PositioningSettings
from selfpos.searched_merge import position_and_merge
from tests.helpers.adapters import state
from tests.helpers.stand_ins import Probe, records

OTHER_SEARCHES: dict[str, list[Any]] = {
    "--steps": ["self-positioning", "--steps", 12, "--param", "learning_rate=0.1"],
    "layer-wise": ["layer-wise", "--steps", 12],
    "lm-cocktail": ["lm-cocktail"],
    "cma-es": ["cma-es", "--param", "evaluations=12"],
}
SGD = {"search": "sgd", "space": "spherical", "steps": 8, "batch_size": 16}


def searched(
    live: LiveModel, probe: dict[str, Probe], path: Path | None = None, **options: object
) -> tuple[LinearisedSearch, Tensor]:
    """The default search over a live model, and the point that it finds."""
    settings = PositioningSettings(**options)
    tasks, _ = split_probe(probe, 0.0, 0, settings.temperature)
    with Trajectory(path) as record:
        search = LinearisedSearch(Problem(live, tasks, settings), record, seed=0)
        return search, search.run()


def left_by_search(
    base: Path, sources: list[Path], folder: Path, options: dict, **kept: bool
) -> dict[str, bytes]:
    """What a search leaves: its weights, coefficients and trajectory, times aside."""
    settings = PositioningSettings(compare=False, **options)
    files = {"trajectory": folder / "way.jsonl", "coefficients": folder / "c.json"}
    position_and_merge(str(base), sources, records(), settings, folder / "out", seed=2, **files, **kept)
    assert sorted(path.name for path in folder.iterdir()) == ["c.json", "out", "way.jsonl"]
    way = [json.loads(line) for line in (folder / "way.jsonl").read_text().splitlines()]
    found = json.loads((folder / "c.json").read_text())
    found["found_by"].pop("seconds")
    timeless = json.dumps([{key: value for key, value in line.items() if key != "seconds"} for line in way])
    return {
        **{path.name: path.read_bytes() for path in (folder / "out").rglob("*.safetensors")},
        "c": json.dumps(found).encode(),
        "way": timeless.encode(),
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
