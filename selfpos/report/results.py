"""What a run left on disk, read back for tables and figures. Whatever is not there yet is named in `missing`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, load_recipe
from selfpos.storage.manifest import read_json
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from selfpos.comparison import Comparison
    from selfpos.report.costs import Cost


@dataclass(frozen=True)
class Search:
    """One search for coefficients: what it found and the steps that led there."""

    position: dict[str, Any]
    trajectory: list[dict[str, Any]]


@dataclass(frozen=True)
class RunResults:
    """The results of a run. `missing` is what the run has yet to make, `optional` what other verbs could add. `scores` maps model → task → main score in 0..1; `tasks` maps task → {"type", "metric"};
    `pipelines` maps pipeline → what its trainings took, of which `equal` was held equal."""

    recipe: Recipe
    tasks: dict[str, dict[str, str]]
    scores: dict[str, dict[str, float]]
    vectors: list[str]
    gram: list[list[float]]
    searches: dict[str, Search]
    seconds: dict[str, float]
    missing: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    comparison: Comparison | None = None
    costs: list[Cost] = field(default_factory=list)
    origins: list[tuple[str, str, str]] = field(default_factory=list)
    pipelines: dict[str, dict[str, float]] = field(default_factory=dict)
    equal: str | None = None

    @property
    def baseline(self) -> str:
        """The model that differences are to."""
        return self.comparison.baseline if self.comparison else "base"

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
        return "positioned" if self.recipe.merges[model].search else "merge"


def read_results(folder: RunFolder) -> RunResults:
    """Read the run in `folder`; raises SelfposError when it is no run at all."""
    if not folder.recipe.is_file():
        raise SelfposError(f"{folder.path} is no run: it has no {folder.recipe.name}")
    recipe = load_recipe(folder.recipe)
    missing: list[str] = []
    tasks, scores = _scores(folder, recipe, missing)
    geometry: dict[str, Any] = {"names": [], "gram": []}
    if folder.geometry.is_file():
        geometry = read_json(folder.geometry)
    else:
        missing.append("norms and angles of the task vectors")
    searches = {}
    for name, merge in recipe.merges.items():
        if merge.search is None:
            continue
        if folder.position(name).is_file() and folder.trajectory(name).is_file():
            steps = [
                json.loads(line) for line in folder.trajectory(name).read_text(encoding="utf-8").splitlines()
            ]
            searches[name] = Search(read_json(folder.position(name)), steps)
        else:
            missing.append(f"coefficients of {name}")
    models = {
        "base",
        "joint",
        *recipe.trained,
        *recipe.merges,
    }  # marks of merges that the recipe no longer has stay in the folder
    marks = [
        file
        for file in sorted((folder.path / "jobs").glob("*.json"))
        if "." not in file.stem or file.stem.partition(".")[2] in models
    ]
    seconds = {mark.stem: read_json(mark)["seconds"] for mark in marks}
    took = read_json(folder.pipelines) if folder.pipelines.is_file() else {"pipelines": {}, "equal": None}
    return RunResults(
        recipe, tasks, scores, geometry["names"], geometry["gram"], searches, seconds, missing, pipelines=took["pipelines"], equal=took["equal"]
    )  # fmt: skip


def with_details(results: RunResults, folder: RunFolder) -> RunResults:
    """`results` with what only the report tells: intervals, costs and where every model comes from."""
    from dataclasses import replace

    from selfpos.comparison import Scored, compare, models_of_run
    from selfpos.report.costs import costs_of, origins_of

    found = models_of_run(folder, results.recipe)
    scored = [
        Scored(name, {"": {task: score for task, score in run.items() if task in results.tasks}})
        for name, run in found.items()
    ]
    scored = [model for model in scored if model.runs[""]]
    comparison = compare(scored) if len(scored) > 1 else None
    optional = (
        [] if folder.analysis.is_file() else ["conflicts between the tasks' gradients (selfpos analyse)"]
    )
    if scored and (comparison is None or comparison.notes):
        optional.append("intervals of all scores (score again, so that the examples behind them are kept)")
    return replace(
        results,
        optional=optional,
        comparison=comparison,
        costs=costs_of(results, folder),
        origins=origins_of(results, folder),
    )


def _scores(
    folder: RunFolder, recipe: Recipe, missing: list[str]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, float]]]:
    """The run's table, or as long as it is not there what has been scored so far."""
    if folder.table.is_file():
        table = read_json(folder.table)
        return table["tasks"], table["scores"]
    from selfpos.comparison import models_of_run

    found = models_of_run(folder, recipe)
    all_models = ["base", *recipe.trained, *recipe.merges]
    lacking = [model for model in all_models if model not in found]
    missing.append(
        f"scores of {', '.join(lacking)}"
        if found and lacking
        else "scores of all models"
        if not found
        else "the table of the run"
    )
    tasks = {
        task: {"type": score.type, "metric": score.metric}
        for run in found.values()
        for task, score in run.items()
    }
    return tasks, {
        model: {task: score.main_score for task, score in run.items()} for model, run in found.items()
    }
