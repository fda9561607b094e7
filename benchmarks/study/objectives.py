"""How well smooth stand-ins and training losses follow the test score, task by task.

    python benchmarks/study/objectives.py --data FOLDER --seeds 0 1 2

The embeddings of the probe's and the tests' texts are taken once at one scale for all, .6, with their slopes
along every vector; at any point near by they are then known without a forward pass (the file says how far
that is from the truth at one point). At 40 points, scales and random coefficients, each candidate's value on
the probe is set beside the test score of its task: Spearman's rank correlation, all over and over the better
half of the points. Results: benchmarks/results/study_objectives.json and .md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import probe_of
from models import base_model, specialists
from settings import MAX_LENGTH, SETTINGS
from torch import Tensor

from tests import MEASURES

CENTRE, STEP, POINTS = 0.6, 0.15, 40
CHECKED = (
    0.2,
    1.2,
    0.8,
    0.3,
    0.8,
)  # the point at which the linear embeddings are compared with the true ones
TEMPERATURES = (0.02, 0.05, 0.1)  # of the search's setting; its default is .05


class Linear:
    """Embeddings of texts, linear in the coefficients."""

    def __init__(self, live: Any, texts: Sequence[str]) -> None:
        self.row_of = {text: row for row, text in enumerate(texts)}
        self.count = len(live.vectors)
        self.centre = self._embed(live, texts, [CENTRE] * self.count)
        self.slopes = []
        for index in range(self.count):
            moved = [CENTRE + STEP * (other == index) for other in range(self.count)]
            self.slopes.append((self._embed(live, texts, moved) - self.centre) / STEP)
        self.checked = [CHECKED[index % len(CHECKED)] for index in range(self.count)]
        self.true = self._embed(live, texts, self.checked)

    @staticmethod
    @torch.no_grad()
    def _embed(live: Any, texts: Sequence[str], coefficients: Sequence[float]) -> Tensor:
        row = torch.tensor(coefficients, dtype=torch.float64)
        live.set_coefficients(row.expand(len(live.keys), len(coefficients)))
        return live.embed(texts)

    def at(self, coefficients: Sequence[float]) -> Tensor:
        """Unit embeddings of all texts at `coefficients`."""
        moved = self.centre
        for slope, coefficient in zip(self.slopes, coefficients, strict=True):
            moved = moved + (coefficient - CENTRE) * slope
        return torch.nn.functional.normalize(moved, dim=1)

    def rows(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([self.row_of[text] for text in texts])


def texts_of_tests(tasks: Sequence[str], data: Path, seed: int) -> list[str]:
    """The texts that the tests of `tasks` embed."""
    seen: dict[str, None] = {}
    rng = np.random.default_rng(0)

    def record(texts: Sequence[str]) -> np.ndarray:
        seen.update(dict.fromkeys(texts))
        return rng.normal(size=(len(texts), 8))

    for task in tasks:
        MEASURES[task](record, data, seed)
    return list(seen)


def candidates(task: Any, linear: Linear) -> dict[str, Callable[[Tensor], float]]:
    """Name → value on the probe by embeddings: lower is better."""
    from selfpos.positioning.draws import Draws
    from selfpos.positioning.objective import losses_of, texts_of
    from selfpos.positioning.smooth import smooth_measure
    from selfpos.tasks.measure import TaskMeasure

    batch = task.everything()
    found: dict[str, Callable[[Tensor], float]] = {}
    for size in (6, 32):
        draws = Draws({task.name: task}, size, 0, single=True)
        batches = draws.fixed()
        rows = linear.rows(texts_of(batches))
        found[f"training loss, batches of {size}"] = lambda at, batches=batches, rows=rows: float(
            losses_of({task.name: task}, batches, at[rows])[task.name]
        )
    for temperature in TEMPERATURES:
        smooth = smooth_measure(batch, temperature)
        rows = linear.rows(smooth.texts)
        name = f"smooth, temperature {temperature:g}"
        found[name] = lambda at, smooth=smooth, rows=rows: float(smooth.value(at[rows]))
    empty = type(batch)(
        task.name, [[] for _ in batch.columns], None if batch.labels is None else batch.labels[:0]
    )
    measure = TaskMeasure(empty, batch)
    rows = linear.rows(measure.texts)
    found["the measure itself"] = lambda at: -measure.score(at[rows])
    return found


def study(label: str, seed: int, data: Path, models: Path) -> list[dict[str, Any]]:
    """A row for each task and candidate."""
    from scipy.stats import spearmanr

    from selfpos.positioning.objective import TaskProbe
    from selfpos.positioning.position import open_live
    from selfpos.recipe import PositioningSettings

    setting = SETTINGS[label]
    folders = specialists(setting, seed, data, models)
    live = open_live(base_model(), folders, PositioningSettings(max_length=MAX_LENGTH, separate=False), None)
    probe = probe_of(setting, seed, data)
    tasks = {name: TaskProbe(name, part.type, part.dataset, 0.05) for name, part in probe.items()}
    columns = [column for task in tasks.values() for column in task.everything().columns]
    texts = dict.fromkeys(
        [*(text for column in columns for text in column), *texts_of_tests(list(tasks), data, seed)]
    )
    linear = Linear(live, list(texts))
    rng = np.random.default_rng(seed)
    points = [[scale] * len(folders) for scale in (0.0, 0.25, 0.5, 0.75, 1.0)]
    while len(points) < POINTS:
        random = rng.uniform(0.1, 1.0) + rng.normal(0, 0.4, len(folders))
        points.append(np.clip(random, -0.2, 1.6).tolist())

    def test(task: str, at: Tensor) -> float:
        units = at.numpy()
        return 100 * MEASURES[task](lambda texts: units[linear.rows(texts).numpy()], data, seed)

    embeddings = [linear.at(point) for point in points]
    rows = []
    for name, task in tasks.items():
        scores = np.array([test(name, at) for at in embeddings])
        error = test(name, linear.at(linear.checked)) - test(
            name, torch.nn.functional.normalize(linear.true, dim=1)
        )
        better = scores >= np.median(scores)
        for candidate, value in candidates(task, linear).items():
            values = np.array([value(at) for at in embeddings])
            rows.append(
                {
                    "setting": label, "seed": seed, "task": name, "objective": candidate,
                    "all": round(-float(spearmanr(values, scores).statistic), 2),
                    "better_half": round(-float(spearmanr(values[better], scores[better]).statistic), 2),
                    "lost": round(float(scores.max() - scores[values.argmin()]), 2),
                    "range": [round(float(scores.min()), 2), round(float(scores.max()), 2)],
                    "error_of_linearisation": round(error, 2),
                }
            )  # fmt: skip
    return rows


def main() -> None:
    from selfpos.console import markdown_table
    from selfpos.storage.atomic import write_text

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("checkpoints/study"))
    parser.add_argument("--setting", choices=SETTINGS, default="five-tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=Path(__file__).parent.parent / "results")
    options = parser.parse_args()
    file = options.results / "study_objectives.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for seed in options.seeds:
        if any((row["setting"], row["seed"]) == (options.setting, seed) for row in rows):
            continue
        rows += study(options.setting, seed, options.data, options.models / "models")
        write_text(file, json.dumps(rows, indent=1) + "\n")
        names = ("setting", "seed", "task", "objective", "all", "better_half", "lost")
        table = markdown_table(names, [[str(row[name]) for name in names] for row in rows])
        write_text(file.with_suffix(".md"), f"# Objectives and test scores\n\n{table}\n")


if __name__ == "__main__":
    main()
