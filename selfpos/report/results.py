"""What a run left on disk, read back for tables and figures. Whatever is not there yet is named in `missing`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, load_recipe
from selfpos.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Search:
    """One search for coefficients: what it found and the steps that led there."""

    position: dict[str, Any]
    trajectory: list[dict[str, Any]]


@dataclass(frozen=True)
class RunResults:
    """The results of a run. `scores` maps model → task → main score in 0..1; `tasks` maps task → {"type", "metric"}.

    `pipelines` maps pipeline → what its trainings took, of which `equal` was held equal.
    """

    recipe: Recipe
    tasks: dict[str, dict[str, str]]
    scores: dict[str, dict[str, float]]
    vectors: list[str]
    gram: list[list[float]]
    searches: dict[str, Search]
    seconds: dict[str, float]
    missing: list[str] = field(default_factory=list)
    pipelines: dict[str, dict[str, float]] = field(default_factory=dict)
    equal: str | None = None

    def mean(self, model: str) -> float | None:
        """Mean over all tasks of the run; None while one is missing."""
        scores = self.scores.get(model, {})
        return sum(scores.values()) / len(scores) if len(scores) == len(self.tasks) and scores else None

    def kind(self, model: str) -> str:
        """`base`, `specialist`, `joint`, `iterative`, `bagging`, `positioned` (learned coefficients) or `merge`."""
        if model == "base":
            return model
        known: dict[str, Collection[str]] = {
            "specialist": self.recipe.tasks,
            "joint": self.recipe.joints,
            "iterative": self.recipe.stages,
            "bagging": self.recipe.bags,
        }
        for kind, names in known.items():
            if model in names:
                return kind
        return "positioned" if self.recipe.merges[model].method == "self-positioning" else "merge"


def read_results(folder: RunFolder) -> RunResults:
    """Read the run in `folder`; raises SelfposError when it is no run at all."""
    if not folder.recipe.is_file():
        raise SelfposError(f"{folder.path} is no run: it has no {folder.recipe.name}")
    recipe = load_recipe(folder.recipe)
    missing = []
    table: dict[str, Any] = {"tasks": {}, "scores": {}}
    if folder.table.is_file():
        table = json.loads(folder.table.read_text(encoding="utf-8"))
    else:
        missing.append("scores of all models")
    geometry: dict[str, Any] = {"names": [], "gram": []}
    if folder.geometry.is_file():
        geometry = json.loads(folder.geometry.read_text(encoding="utf-8"))
    else:
        missing.append("norms and angles of the task vectors")
    searches = {}
    for name, merge in recipe.merges.items():
        if merge.method != "self-positioning":
            continue
        if folder.position(name).is_file() and folder.trajectory(name).is_file():
            steps = [json.loads(line) for line in folder.trajectory(name).read_text(encoding="utf-8").splitlines()]
            searches[name] = Search(json.loads(folder.position(name).read_text(encoding="utf-8")), steps)
        else:
            missing.append(f"coefficients of {name}")
    trained = {*recipe.tasks, *recipe.joints, *recipe.stages, *recipe.bags}
    models = {"base", "joint", *trained, *recipe.merges}  # marks of merges that the recipe no longer has stay in the folder
    marks = [
        file for file in sorted((folder.path / "jobs").glob("*.json")) if "." not in file.stem or file.stem.partition(".")[2] in models
    ]
    seconds = {mark.stem: json.loads(mark.read_text(encoding="utf-8"))["seconds"] for mark in marks}
    took = json.loads(folder.pipelines.read_text(encoding="utf-8")) if folder.pipelines.is_file() else {"pipelines": {}, "equal": None}
    return RunResults(
        recipe, table["tasks"], table["scores"], geometry["names"], geometry["gram"], searches, seconds, missing, took["pipelines"], took["equal"]
    )  # fmt: skip
