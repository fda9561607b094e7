"""What a run writes about its models: vector geometry, costs of the trainings, scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from selfpos.storage.run_folder import RunFolder

# pipelines.json: its name → the name in a training's manifest.
SUMS = {"draws": "samples", "steps": "steps", "tokens": "tokens", "seconds": "seconds"}
PEAKS = ("peak_memory_bytes", "peak_gpu_memory_bytes")


def write_geometry(base: Path, models: list[Path], out: Path, names: list[str] | None = None) -> None:
    """Write the Gram matrix of the task vectors of `models`, as JSON: {"names": [N], "gram": [N][N]}."""
    from selfpos.storage.atomic import write_text
    from selfpos.storage.model_folder import open_model
    from selfpos.vectors import gram, open_vectors

    vectors = open_vectors(open_model(base), models, names=names)
    geometry = {"names": [vector.name for vector in vectors], "gram": gram(vectors).tolist()}
    write_text(out, json.dumps(geometry, indent=1))


def write_pipelines(folder: RunFolder, pipelines: Mapping[str, list[Path]], equal: str | None) -> None:
    """Write what the trainings of each pipeline took, as JSON: sums over their manifests, and the largest
    peaks.

    {"equal": what the budget holds equal, "pipelines": {name: {"trainings", "draws", "steps", "tokens",
    "seconds", "peak_memory_bytes", and on a GPU "peak_gpu_memory_bytes"}}}. A training of two pipelines
    counts in both.
    """
    from selfpos.storage.atomic import write_text
    from selfpos.storage.manifest import read_manifest

    table = {}
    for name, outputs in pipelines.items():
        manifests = [read_manifest(out) for out in outputs]
        sums = {key: sum(manifest[field] for manifest in manifests) for key, field in SUMS.items()}
        measured = [key for key in PEAKS if all(key in manifest for manifest in manifests)]
        peaks = {key: max(manifest[key] for manifest in manifests) for key in measured}
        table[name] = {"trainings": len(outputs), **sums, "seconds": round(sums["seconds"], 3), **peaks}
    write_text(folder.pipelines, json.dumps({"equal": equal, "pipelines": table}, indent=1))


def write_table(folder: RunFolder, models: list[str]) -> None:
    """Write the scores of `models` as JSON: {"tasks": …, "scores": {model: {task: main score}}}."""
    from selfpos.evaluation import read_scores
    from selfpos.storage.atomic import write_text

    tasks: dict[str, dict[str, str]] = {}
    scores: dict[str, dict[str, float]] = {}
    for model in models:
        by_task = read_scores(folder.scores(model))
        tasks |= {task: {"type": score.type, "metric": score.metric} for task, score in by_task.items()}
        scores[model] = {task: score.main_score for task, score in by_task.items()}
    write_text(folder.table, json.dumps({"tasks": tasks, "scores": scores}, indent=1))
