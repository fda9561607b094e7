"""What the study's own rivals need: measures on the probe at any weights, and vectors of random direction."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import base_model
from settings import MAX_LENGTH


class ProbeMeasures:
    """The mean measure of the probe's tasks at any weights of the specialists."""

    def __init__(self, specialists: Sequence[Path], probe: Mapping[str, Any]) -> None:
        from selfpos.positioning.folds import Folds
        from selfpos.positioning.objective import TaskProbe
        from selfpos.positioning.position import open_live
        from selfpos.positioning.verdict import TaskMeasures
        from selfpos.recipe import PositioningSettings

        settings = PositioningSettings(max_length=MAX_LENGTH, separate=False)
        self.live = open_live(base_model(), specialists, settings, None)
        tasks = {
            name: TaskProbe(name, task.type, task.dataset, settings.temperature)
            for name, task in probe.items()
        }
        self.measures = TaskMeasures(Folds(tasks, settings.temperature, 0))

    def mean(self, weights: Sequence[float]) -> float:
        """The mean measure at θ0 + Σ weights[i]·V_i."""
        import torch

        from selfpos.positioning.verdict import scores_of

        row = torch.tensor(weights, dtype=torch.float64)
        with torch.no_grad():
            self.live.set_coefficients(row.expand(len(self.live.keys), len(weights)))
            embeddings = self.live.embed(self.measures.folds.table.texts)
        scores = scores_of(self.measures.measures, self.measures.items(embeddings))
        return sum(scores.values()) / len(scores)


def randomised(base: Path, specialist: Path, out: Path, seed: int) -> Path:
    """A copy of `specialist` whose difference to `base` has random directions and the norm of each tensor."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(specialist, out)
    (out / "selfpos.json").unlink(missing_ok=True)
    weights = next(specialist.rglob("model.safetensors"))
    start, tuned = (load_file(folder / weights.relative_to(specialist)) for folder in (base, specialist))
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tuned.items():
        difference = (tensor - start[name]).float() if tensor.is_floating_point() else None
        if difference is not None and float(difference.norm()) > 0:
            noise = torch.randn(tensor.shape, generator=generator)
            tuned[name] = (start[name] + noise * (difference.norm() / noise.norm())).to(tensor.dtype)
    save_file(tuned, out / weights.relative_to(specialist), metadata={"format": "pt"})
    return out
