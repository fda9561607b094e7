"""Scores for the card, read from MTEB's own result files: `<root>/<model>/<revision>/<task>.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from selfpos.publishing.shape import read_json


@dataclass(frozen=True)
class Score:
    """One model on one split and language subset of one task. `value` is MTEB's main score, between 0 and 1."""

    task: str
    value: float
    split: str
    subset: str
    revision: str | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Task:
    """What an evaluation task is. `dataset` is its Hub id, None where its data is local; `category` the Hub's name of such tasks."""

    name: str
    type: str | None = None
    metric: str | None = None
    dataset: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Scores:
    """All result files below one root: model → its scores, and what is known of the tasks."""

    models: Mapping[str, tuple[Score, ...]]
    tasks: Mapping[str, Task]
    mteb: str | None = None

    def value(self, model: str, task: str) -> float | None:
        """Mean over the splits and subsets that `model` was scored on, None where it was not."""
        found = [score.value for score in self.models.get(model, ()) if score.task == task]
        return fmean(found) if found else None

    def interval(self, model: str, task: str) -> tuple[float, float] | None:
        """The interval recorded with the score; None where there is none, or more than one score to it."""
        found = [score for score in self.models.get(model, ()) if score.task == task]
        return found[0].interval if len(found) == 1 else None


def read_scores(root: Path) -> Scores | None:
    """Read every result file below `root`; None where there is none. Raises SelfposError where one is not JSON."""
    models: dict[str, list[Score]] = {}
    versions: set[str] = set()
    for file in sorted(root.rglob("*.json")):
        record = read_json(file)
        if not isinstance(record, dict) or "task_name" not in record or not isinstance(record.get("scores"), dict):
            continue
        model = file.parent.parent.name.replace("__", "/")
        models.setdefault(model, []).extend(_scores(record))
        versions.add(str(record.get("mteb_version")))
    if not models:
        return None
    names = {score.task for scores in models.values() for score in scores}
    tasks = {name: describe(name, root) for name in sorted(names)}
    return Scores({name: tuple(scores) for name, scores in models.items()}, tasks, versions.pop() if len(versions) == 1 else None)


def _scores(record: Mapping[str, Any]) -> list[Score]:
    found = []
    for split, subsets in record["scores"].items():
        for entry in subsets:
            if isinstance(entry.get("main_score"), int | float):
                bounds = entry.get("interval")
                interval = (float(bounds[0]), float(bounds[1])) if isinstance(bounds, list) and len(bounds) == 2 else None
                subset = str(entry.get("hf_subset", "default"))
                found.append(
                    Score(record["task_name"], float(entry["main_score"]), split, subset, record.get("dataset_revision"), interval)
                )
    return found


def describe(name: str, root: Path) -> Task:
    """The task as MTEB knows it; a task of the user's own as `tasks.json` below `root` describes it; else its name alone."""
    own = read_json(root / "tasks.json").get(name)
    if isinstance(own, dict):
        return Task(name, own.get("type"), own.get("metric"), own.get("dataset"), own.get("category"))
    import mteb

    try:
        metadata = mteb.get_task(name).metadata
    except (KeyError, ValueError):
        return Task(name)
    return Task(name, metadata.type, metadata.main_score, metadata.dataset["path"], metadata._hf_task_type()[0])
