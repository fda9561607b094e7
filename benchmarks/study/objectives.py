"""How well smooth stand-ins and training losses follow the test score, task by task.

    python benchmarks/study/objectives.py --data FOLDER --setting unequal --seeds 0

The embeddings of the probe's and the tests' texts are taken once at one scale for all, 1.2 of the separated
vectors, with their slopes along every vector; at any point near by they are then known without a forward pass
(the result says how far the score is from the truth at the base). At 45 points, scales and random
coefficients, each candidate's value on the probe is set beside the test score of its task: Spearman's rank
correlation, over all points and over the better half. Results: benchmarks/results/study_objectives.json, .md;
the test scores of the points themselves: study_space.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from data import probe_of
from models import base_model, specialists
from options import study_parser
from settings import MAX_LENGTH, SETTINGS
from torch import Tensor

from tests import MEASURES

CENTRE, STEP, POINTS = 1.2, 0.05, 45
TEMPERATURES = (0.025, 0.05, 0.1)  # of the search's setting; its default is .05


class Linear:
    """Embeddings (P, d) of texts, linear in the coefficients, kept in `file`."""

    def __init__(self, file: Path, live: Callable[[], Any], texts: Sequence[str]) -> None:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save(self._taken(live(), list(texts)), file)
        kept = torch.load(file)
        self.row_of = {text: row for row, text in enumerate(kept["texts"])}
        self.centre, self.slopes, self.base = kept["c"], kept["slopes"], kept["base"]

    @staticmethod
    @torch.no_grad()
    def _taken(live: Any, texts: list[str]) -> dict[str, Any]:
        count = len(live.vectors)

        def at(coefficients: Sequence[float]) -> Tensor:
            row = torch.tensor(coefficients, dtype=torch.float64)
            live.set_coefficients(row.expand(len(live.keys), count))
            return live.embed(texts).float().cpu()

        centre = at([CENTRE] * count)
        moved = [[CENTRE + STEP * (other == index) for other in range(count)] for index in range(count)]
        slopes = torch.stack([(at(point) - centre) / STEP for point in moved])
        return {"texts": texts, "c": centre, "slopes": slopes, "base": at([0.0] * count)}

    def at(self, coefficients: Sequence[float]) -> Tensor:
        """Unit embeddings of all texts at `coefficients`."""
        moved = self.centre + torch.tensordot(torch.tensor(coefficients).float() - CENTRE, self.slopes, 1)
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


@contextmanager
def as_they_are() -> Iterator[None]:
    """Class means and reranking by plain cosines, in no unit."""
    from selfpos.positioning import smooth

    with patch.object(smooth, "_spread", lambda *_: 1.0), patch.multiple(smooth, CLASSES=1.0, RERANKED=1.0):
        yield


def candidates(task: Any, linear: Linear) -> dict[str, Callable[[Tensor], float]]:
    """Name → value on the probe by embeddings: lower is better."""
    from selfpos.positioning.draws import Draws
    from selfpos.positioning.objective import losses_of, texts_of
    from selfpos.positioning.smooth import ClassMeans, Reranking, smooth_measure

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
        found[f"smooth, temperature {temperature:g}"] = lambda at, smooth=smooth, rows=rows: float(
            smooth.value(at[rows])
        )
    if isinstance(smooth, ClassMeans | Reranking):
        for temperature in TEMPERATURES:
            with as_they_are():
                plain = smooth_measure(batch, temperature)

            def plain_value(at: Tensor, plain: Any = plain, rows: Tensor = rows) -> float:
                with as_they_are():
                    return float(plain.value(at[rows]))

            found[f"cosines as they are, temperature {temperature:g}"] = plain_value
    measure = task.measure(batch)
    rows = linear.rows(measure.texts)
    found["the measure itself"] = lambda at: -measure.score(at[rows])
    return found


def study(
    label: str, seed: int, data: Path, models: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row for each task and candidate, and the test scores of each point.

    Points half a vector from the centre are scored, too, but judge no candidate.
    """
    from scipy.stats import spearmanr

    from selfpos.positioning.objective import TaskProbe
    from selfpos.positioning.position import open_live
    from selfpos.recipe import PositioningSettings

    setting = SETTINGS[label]
    folders = specialists(setting, seed, data, models)
    settings = PositioningSettings(max_length=MAX_LENGTH, separate=True)
    probe = probe_of(setting, seed, data)
    tasks = {name: TaskProbe(name, part.type, part.dataset, 0.05) for name, part in probe.items()}
    columns = [column for task in tasks.values() for column in task.everything().columns]
    texts = dict.fromkeys(
        [*(text for column in columns for text in column), *texts_of_tests(list(tasks), data, seed)]
    )
    file = models.parent / "spans" / f"{label}-seed{seed}.pt"
    linear = Linear(file, lambda: open_live(base_model(), folders, settings, None), list(texts))
    rng = np.random.default_rng(seed)
    points = [[scale] * len(folders) for scale in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)]
    while len(points) < POINTS:
        random = rng.uniform(0.1, 1.8) + rng.normal(0, 0.5, len(folders))
        points.append(np.clip(random, -0.3, 2.4).tolist())

    def test(task: str, at: Tensor) -> float:
        units = at.numpy()
        return 100 * MEASURES[task](lambda texts: units[linear.rows(texts).numpy()], data, seed)

    count = len(points)
    for index in range(len(folders)):
        for change in (-0.5, 0.5):
            points.append([CENTRE + change * (other == index) for other in range(len(folders))])
    embeddings = [linear.at(point) for point in points]
    rows: list[dict[str, Any]] = []
    space = [{"setting": label, "seed": seed, "coefficients": np.round(p, 2).tolist()} for p in points]
    for name, task in tasks.items():
        measured = [test(name, at) for at in embeddings]
        for point, score in zip(space, measured, strict=True):
            point[name] = round(score, 2)
        scores = np.array(measured[:count])
        error = scores[0] - test(name, torch.nn.functional.normalize(linear.base, dim=1))
        better = scores >= np.median(scores)
        for candidate, value in candidates(task, linear).items():
            values = np.array([value(at) for at in embeddings[:count]])
            rows.append(
                {
                    "setting": label, "seed": seed, "task": name, "objective": candidate,
                    "all": round(-float(spearmanr(values, scores).statistic), 2),
                    "better_half": round(-float(spearmanr(values[better], scores[better]).statistic), 2),
                    "lost": round(float(scores.max() - scores[values.argmin()]), 2),
                    "range": [round(float(scores.min()), 2), round(float(scores.max()), 2)],
                    "error_at_base": round(error, 2),
                }
            )  # fmt: skip
    return rows, space


def main() -> None:
    from selfpos.console import markdown_table
    from selfpos.storage.atomic import write_text

    parser = study_parser(__doc__)
    parser.add_argument("--setting", choices=SETTINGS, default="five-tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    file = options.results / "study_objectives.json"
    spaces = options.results / "study_space.json"
    rows, points = (json.loads(f.read_text(encoding="utf-8")) if f.exists() else [] for f in (file, spaces))
    for seed in options.seeds:
        if any((row["setting"], row["seed"]) == (options.setting, seed) for row in rows):
            continue
        found, space = study(options.setting, seed, options.data, options.models / "models")
        rows, points = rows + found, points + space
        write_text(spaces, "[\n" + ",\n".join(map(json.dumps, points)) + "\n]\n")
        write_text(file, json.dumps(rows, indent=1) + "\n")
        names = ("setting", "seed", "task", "objective", "all", "better_half", "lost")
        table = markdown_table(names, [[str(row[name]) for name in names] for row in rows])
        write_text(file.with_suffix(".md"), f"# Objectives and test scores\n\n{table}\n")


if __name__ == "__main__":
    main()
