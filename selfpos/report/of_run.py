"""What a run left on disk, for its report. What is missing is named."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from selfpos.comparison import Scored, models_of_run
from selfpos.comparison.tables import terminal
from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, load_recipe
from selfpos.recipe.recipe import recipe_for_others
from selfpos.report.results import Cost, Results, Search, make_table, scores_of, tasks_of
from selfpos.scores.files import TaskScore
from selfpos.storage.locate import without_folders
from selfpos.storage.manifest import read_json, read_manifest
from selfpos.storage.run_folder import RunFolder


def read_run(folder: RunFolder) -> Results:
    """The results of the run in `folder`; raises SelfposError when it is no run."""
    if not folder.recipe.is_file():
        raise SelfposError(f"{folder.path} is no run: it has no {folder.recipe.name}")
    recipe = load_recipe(folder.recipe)
    missing: list[str] = []
    runs = models_of_run(folder, recipe)
    tasks, scores = _scores(folder, recipe, runs, missing)
    geometry: dict[str, Any] = {"names": [], "gram": []}
    if folder.geometry.is_file():
        geometry = read_json(folder.geometry)
    else:
        missing.append("norms and angles of the task vectors")
    searches = {}
    for name in [name for name, merge in recipe.merges.items() if merge.search is not None]:
        if folder.position(name).is_file() and folder.trajectory(name).is_file():
            lines = folder.trajectory(name).read_text(encoding="utf-8").splitlines()
            searches[name] = Search(read_json(folder.position(name)), [json.loads(line) for line in lines])
        else:
            missing.append(f"coefficients of {name}")
    took = read_json(folder.pipelines) if folder.pipelines.is_file() else {"pipelines": {}, "equal": None}
    models = ["base", *recipe.trained, *recipe.merges]
    places = {model: next((path for path in folder.places(model) if path.is_dir()), None) for model in models}
    folders = {model: path for model, path in places.items() if path is not None}
    shown = {name: {task: run[task] for task in run if task in tasks} for name, run in runs.items()}
    seconds = _seconds(folder, models)
    conflicts = "conflicts between the tasks' gradients (selfpos analyse)"
    return Results(
        name=recipe.name,
        lead=f"{len(recipe.tasks)} specialists of {without_folders(recipe.base)}, merged in "
        f"{len(recipe.merges)} ways, scored on {len(tasks)} tasks.",
        kinds={model: _kind(recipe, model) for model in models},
        folders=folders,
        scored=[Scored(name, {"": scores}) for name, scores in shown.items() if scores],
        tasks=tasks,
        scores=scores,
        searches=searches,
        vectors=geometry["names"],
        gram=geometry["gram"],
        missing=missing,
        additions=[] if folder.analysis.is_file() else [conflicts],
        seconds=seconds,
        costs=_costs(folder, recipe, folders, searches, seconds),
        pipelines=took["pipelines"],
        equal=took["equal"],
        recipe=recipe_for_others(folder.recipe),
        sections=[file.read_text(encoding="utf-8") for file in folder.sections],
    )


def score_table(folder: RunFolder) -> str:
    """The table of the run in `folder` as text for a terminal."""
    return terminal(make_table(read_run(folder)))


def _seconds(folder: RunFolder, models: Collection[str]) -> dict[str, float]:
    """Job → the seconds it took; jobs of merges that the recipe no longer has stay in the folder."""
    seconds = {}
    for file in sorted((folder.path / "jobs").glob("*.json")):
        _, dot, model = file.stem.partition(".")
        if not dot or model == "joint" or model in models:
            seconds[file.stem] = read_json(file)["seconds"]
    return seconds


def _costs(
    folder: RunFolder,
    recipe: Recipe,
    folders: Mapping[str, Path],
    searches: Mapping[str, Search],
    seconds: Mapping[str, float],
) -> list[Cost]:
    """The costs of all models, from the records of jobs, the manifests and the searches."""

    def seconds_for(model: str) -> float | None:
        jobs = [job.replace("/", ".") for job in folder.places(model).values()]
        return next((seconds[job] for job in jobs if job in seconds), None)

    costs = []
    for name in ("base", *recipe.trained, *recipe.merges):
        manifest = read_manifest(folders[name]) if name in folders else {}
        texts = searches[name].position.get("texts") if name in searches else None
        draws = None
        if manifest.get("samples") is not None:
            draws = f"{manifest['samples']:,} samples"
        elif texts is not None:
            draws = f"{texts:,} texts"
        parts = [seconds_for(model) for model in [*_inputs(recipe, name), name]]
        measured = [part for part in parts if part is not None]
        total = sum(measured) if len(measured) == len(parts) else None
        memory, scoring = manifest.get("peak_memory_bytes"), seconds.get(f"scores.{name}")
        costs.append(Cost(name, _kind(recipe, name), parts[-1], total, draws, memory, scoring))
    return costs


def _kind(recipe: Recipe, model: str) -> str:
    """The role of a model in figures."""
    trained: dict[str, Collection[str]] = {
        "base": ("base",),
        "specialist": recipe.tasks,
        "joint": recipe.joints,
        "iterative": recipe.stages,
        "bagging": recipe.bags,
    }
    kinds = [kind for kind, names in trained.items() if model in names]
    if kinds:
        return kinds[0]
    return "positioned" if recipe.merges[model].search else "merge"


def _inputs(recipe: Recipe, name: str) -> list[str]:
    """The models that `name` was made from: those that a merge merges, or the stages before a stage."""
    stages = list(recipe.stages)
    inputs: list[str] = stages[: stages.index(name)] if name in stages else []
    if name in recipe.merges:
        pipelines = {"separate": list(recipe.tasks), "iterative": stages, "bagging": list(recipe.bags)}
        inputs = pipelines[recipe.merges[name].vectors]
    return [model for model in inputs if model in recipe.trained]


def _scores(
    folder: RunFolder, recipe: Recipe, runs: Mapping[str, Mapping[str, TaskScore]], missing: list[str]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, float]]]:
    """The run's table; until it is written, what has been scored so far."""
    if folder.table.is_file():
        table = read_json(folder.table)
        return table["tasks"], table["scores"]
    unscored = [model for model in ("base", *recipe.trained, *recipe.merges) if model not in runs]
    absent = f"scores of {', '.join(unscored)}" if unscored else "the table of the run"
    missing.append(absent if runs else "scores of all models")
    return tasks_of(runs.values()), scores_of(runs)
