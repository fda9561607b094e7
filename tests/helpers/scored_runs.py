"""Runs with scores and the examples behind them, as files, without a model; and the report of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from selfpos.scores.examples import Examples, examples_file, score_of, write_examples
from selfpos.storage.run_folder import RunFolder

TYPES = {
    "Docs": ("Retrieval", "ndcg_at_10"),
    "Wiki": ("Retrieval", "ndcg_at_10"),
    "Pairs": ("STS", "cosine_spearman"),
}
RECIPE = {
    "name": "small",
    "tasks": {
        "retrieval": {"type": "retrieval", "data": "corpus"},
        "sts": {"type": "sts", "data": "pairs.jsonl"},
    },
    "joint": None,
    "merges": {"average": {"method": "average"}, "ties": {"method": "ties"}},
}
MODELS = ["base", "retrieval", "sts", "average", "ties"]


def part_of(task: str, quality: float, noise: np.random.Generator, count: int) -> Examples:
    """Examples of a model: queries that it does well on by `quality`, or pairs that it scores rightly up to
    noise.
    """
    world = np.random.default_rng(sum(task.encode()))
    if TYPES[task][0] == "STS":
        gold = world.normal(size=count)
        scores = quality * gold + world.normal(size=count) * 0.5 + 0.2 * noise.normal(size=count)
        return Examples("test", "default", "spearman", count, "pairs", {"scores": scores, "gold": gold})
    values = np.clip(world.beta(2, 2, count) * 0.5 + quality / 2 + 0.02 * noise.normal(size=count), 0, 1)
    return Examples("test", "default", "mean", count, "queries", {"values": values})


def write_scores(
    out: Path, name: str, revision: str, parts: Mapping[str, Examples], *, examples: bool = True
) -> None:
    """What `evaluate` leaves in `out`:

    MTEB's result files, the examples behind them, and the note of what was scored.
    """
    last = {}
    for task, part in parts.items():
        kind, metric = TYPES[task]
        file = out / "results" / name.replace("/", "__") / revision / f"{task}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        scores = {"test": [{"main_score": score_of(part), "hf_subset": "default"}]}
        file.write_text(
            json.dumps({"task_name": task, "dataset_revision": "one", "mteb_version": "2", "scores": scores})
        )
        if examples:
            write_examples(examples_file(file), [part], "one")
        last[task] = {
            "type": kind,
            "metric": metric,
            "main_score": score_of(part),
            "file": file.relative_to(out).as_posix(),
        }
    (out / "last.json").write_text(json.dumps({"model": name, "revision": revision, "tasks": last}))


def write_run(path: Path, seed: int = 0, count: int = 120, **changes: object) -> RunFolder:
    """A run of five models: `ties` is clearly better than the base on Docs, `average` differs by noise."""
    run = RunFolder(path)
    run.path.mkdir(parents=True)
    run.recipe.write_text(yaml.safe_dump(RECIPE | {"seed": seed} | changes), encoding="utf-8")
    noise = np.random.default_rng(seed)
    qualities = {"base": 0.4, "retrieval": 0.45, "sts": 0.4, "average": 0.4, "ties": 0.5}
    for model in MODELS:
        own_noise = np.random.default_rng(99) if model == "base" else noise
        parts = {task: part_of(task, qualities[model], own_noise, count) for task in TYPES}
        write_scores(run.scores(model), f"small/{model}", model.ljust(40, "0"), parts)
    return run


@dataclass(frozen=True)
class WrittenReport:
    """A run, its report as text, and the folder of its figures (SVG)."""

    run: RunFolder
    page: str
    figures: Path
