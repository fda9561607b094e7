"""The loss of the probe over the plane of two task vectors, and where other models lie above it: for looking at, no search needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.errors import SelfposError, unknown

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask

SPAN = (-0.25, 1.5)  # of the grid, in coefficients: beyond the base and beyond each specialist


def measure_landscape(
    base: Path,
    models: Mapping[str, Path],
    pair: tuple[str, str],
    probe: Mapping[str, ProbeTask],
    out: Path,
    *,
    grid: int = 8,
    records: int = 24,
    max_length: int = 64,
    temperature: float = 0.05,
    seed: int = 0,
) -> Path:
    """Measure each task's loss at the `grid` × `grid` points θ0 + x·V_a + y·V_b, (a, b) = `pair`, and write them to the JSON file `out`.

    `models` are the folders of everything that is to be shown, the two of `pair` among them. With it the file tells the place (x, y) of each
    model's orthogonal projection on the plane, and what share of the model's distance from the base lies outside of it. About `records` records of each
    task are looked at, the same at every point. Rows of the grid are kept as they are measured: an interrupted call goes on from there.
    Raises SelfposError for a name that is no model, or two that are the same, and when the two vectors are parallel.
    """
    import torch

    from selfpos.console import progress
    from selfpos.positioning.judge import TextTable
    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.objective import Draws, losses_of, split_probe, texts_of
    from selfpos.storage.atomic import write_text
    from selfpos.storage.model_folder import open_model
    from selfpos.vectors import gram, open_vectors

    for name in pair:
        if name not in models:
            raise unknown("model with a task vector in the run", name, models)
    if pair[0] == pair[1]:
        raise SelfposError(f"a plane needs two different vectors, found '{pair[0]}' twice")
    folder = open_model(base)
    names = [*pair, *(name for name in models if name not in pair)]
    vectors = open_vectors(folder, [models[name] for name in names], names=names)
    places = project(gram(vectors), names)
    axis = np.linspace(*SPAN, grid).tolist()
    asked = {
        "pair": list(pair),
        "axis": axis,
        "records": records,
        "max_length": max_length,
        "temperature": temperature,
        "seed": seed,
    }
    rows = _begun(out, asked | {"models": places})
    live = LiveModel(folder, vectors[:2], max_length=max_length)
    tasks, _ = split_probe(probe, 0, seed, temperature)
    batches = Draws(tasks, records * len(tasks), seed).fixed(records)
    texts = TextTable(texts_of(batches))
    chosen = texts.rows(texts_of(batches))
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        progress(f"landscape of {pair[0]} and {pair[1]}", grid * grid, unit="points") as bar,
        torch.no_grad(),
    ):
        bar.advance(grid * len(rows))
        for y in axis[len(rows) :]:
            row = []
            for x in axis:
                live.place(torch.tensor([[x, y]], dtype=torch.float64).expand(len(live.keys), 2))
                losses = losses_of(tasks, batches, live.embed(texts.texts)[chosen])
                row.append({task: loss.item() for task, loss in losses.items()})
                bar.advance(1, loss=sum(row[-1].values()) / len(row[-1]))
            rows.append(row)
            write_text(out, json.dumps({**asked, "models": places, "losses": rows}))
    return out


def project(products: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Where vectors lie over the plane of the first two, from their inner products (N, N): name → x, y and the share of its length `outside`.

    (x, y) solves the normal equations G·(x, y) = (⟨V, V_a⟩, ⟨V, V_b⟩). Raises SelfposError when the two are parallel.
    """
    plane = products[:2, :2]
    if np.linalg.det(plane) <= 1e-10 * plane[0, 0] * plane[1, 1]:
        raise SelfposError(
            f"the vectors of {names[0]} and {names[1]} are parallel or zero and span no plane; choose two others"
        )
    found = {"base": {"x": 0.0, "y": 0.0, "outside": 0.0}}
    for place, name in enumerate(names):
        x, y = np.linalg.solve(plane, products[place, :2])
        length = float(products[place, place])
        inside = float(np.array([x, y]) @ plane @ np.array([x, y]))
        outside = max(0.0, 1 - inside / length) ** 0.5 if length > 0 else 0.0
        found[name] = {"x": float(x), "y": float(y), "outside": outside}
    return found


def _begun(out: Path, asked: dict[str, Any]) -> list[list[dict[str, float]]]:
    """Rows that an earlier call with the same wishes and models left in `out`."""
    if not out.is_file():
        return []
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
        same = {name: found[name] for name in asked} == json.loads(json.dumps(asked))
        return list(found["losses"]) if same else []
    except (ValueError, KeyError, TypeError):
        return []
