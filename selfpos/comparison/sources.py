"""The scores to compare: found by run, by model, or by a folder of scores. A model that several runs made, each with a seed of its own, is one model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, load_recipe
from selfpos.scores.files import LAST, TaskScore, read_scores
from selfpos.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Scored:
    """A model and its scores: run → task → score. Runs are repetitions with other seeds; a model of no run has the run ''."""

    name: str
    runs: Mapping[str, Mapping[str, TaskScore]]


def find_models(places: Sequence[str], scores: Path) -> list[Scored]:
    """The models that `places` stand for: runs (all of their models), folders of scores, and models (folders or names), scored below the folder `scores`.

    Models of several runs of one recipe that differ in the seed are taken together. Raises SelfposError where nothing is, or was scored.
    """
    runs = [
        RunFolder(Path(place)) for place in dict.fromkeys(places) if (Path(place) / "recipe.yaml").is_file()
    ]
    others = [place for place in dict.fromkeys(places) if not (Path(place) / "recipe.yaml").is_file()]
    found = _together(runs)
    for place in others:
        found += _results(Path(place)) if (Path(place) / "results").is_dir() else [_model(place, scores)]
    names = [model.name for model in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise SelfposError(
            f"two of the models to compare are called '{twice}'; give them apart, or rename one of the folders"
        )
    return found


def models_of_run(folder: RunFolder, recipe: Recipe) -> dict[str, dict[str, TaskScore]]:
    """Model → task → score of what has been scored in the run `folder`, in the order of its tables."""
    names = ["base", *recipe.trained, *recipe.merges]
    return {
        name: read_scores(folder.scores(name)) for name in names if (folder.scores(name) / LAST).is_file()
    }


def _together(runs: Sequence[RunFolder]) -> list[Scored]:
    """The models of `runs`; those that only a seed tells apart as one, others of equal names by the name of their run as well."""
    recipes = {run.path: load_recipe(run.recipe) for run in runs}
    scored = {run.path: models_of_run(run, recipes[run.path]) for run in runs}
    for path, models in scored.items():
        if not models:
            raise SelfposError(f"the run {path} has no scores yet")
    found: dict[str, dict[str, Mapping[str, TaskScore]]] = {}
    makings: dict[str, Any] = {}
    seeds: dict[str, list[int]] = {}
    for path, models in scored.items():
        for model, scores in models.items():
            made = _making(recipes[path], model)
            name = model if makings.setdefault(model, made) == made else f"{path.name}/{model}"
            seed = recipes[path].seed
            if model != "base" and seed in seeds.get(name, []):
                raise SelfposError(
                    f"two of the runs made '{model}' in the same way and with the same seed {seed}; one of them tells nothing new"
                )
            seeds.setdefault(name, []).append(seed)
            found.setdefault(name, {})[str(path)] = scores
    return [Scored(name, by_run) for name, by_run in found.items()]


def _making(recipe: Recipe, model: str) -> Any:
    """What made `model`, but for the seed."""
    made: dict[str, Any] = {"base": recipe.base}
    if model != "base":
        made |= {"training": recipe.training.model_dump(), "probe": recipe.probe.model_dump()}
        tasks = [model] if model in recipe.tasks else list(recipe.tasks)
        made["tasks"] = {task: recipe.tasks[task].model_dump() for task in tasks}
    if model in recipe.joints:
        made["joint"] = recipe.joints[model].model_dump()
    made |= {
        part: getattr(recipe, part).model_dump()
        for part in ("iterative", "bagging", "budget")
        if getattr(recipe, part) is not None
    }
    if model in recipe.merges:
        made["merge"] = recipe.merges[model].model_dump()
    return made


def _model(place: str, scores: Path) -> Scored:
    """One model: by the run that it is part of, else by its content hash below `scores`."""
    from selfpos.storage.hashing import REVISION_LENGTH, content_hash
    from selfpos.storage.locate import locate_model

    folder = locate_model(place)
    for parent in folder.resolve().parents[:2]:
        run = RunFolder(parent)
        if run.recipe.is_file() and (run.scores(folder.name) / LAST).is_file():
            return Scored(folder.name, {"": read_scores(run.scores(folder.name))})
    revision = content_hash(folder)[:REVISION_LENGTH]
    known = _known(scores)
    found = [task for at in sorted(scores.glob(f"results/*/{revision}")) for task in _tasks(at, known)]
    if not found:
        raise SelfposError(
            f"{place} has no scores in {scores}: score it with `selfpos eval-mteb {place} --out {scores}`, or name the folder with --scores"
        )
    return Scored(Path(place).name, {"": {score.task: score for score in found}})


def _results(folder: Path) -> list[Scored]:
    """Every model in a folder of scores, MTEB's own layout."""
    known = _known(folder)
    places = sorted(place for place in folder.glob("results/*/*") if place.is_dir())
    short = [place.parent.name.rpartition("__")[2] for place in places]
    names = [
        name if short.count(name) == 1 else f"{name}@{place.name[:8]}"
        for name, place in zip(short, places, strict=True)
    ]
    found = [
        Scored(name, {"": {score.task: score for score in _tasks(place, known)}})
        for name, place in zip(names, places, strict=True)
    ]
    found = [model for model in found if model.runs[""]]
    if not found:
        raise SelfposError(f"there are no scores in {folder}: it has no results/MODEL/REVISION/TASK.json")
    return found


def _known(folder: Path) -> dict[str, tuple[str, str]]:
    """Task → its type and metric, by the notes below `folder`: MTEB does not know tasks of our own."""
    known: dict[str, tuple[str, str]] = {}
    for file in folder.rglob(LAST):
        known |= {name: (score.type, score.metric) for name, score in read_scores(file.parent).items()}
    return known


def _tasks(folder: Path, known: Mapping[str, tuple[str, str]]) -> list[TaskScore]:
    """The scores in `folder`, results/MODEL/REVISION: means over all splits and subsets."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(record, dict) or "task_name" not in record:
                continue  # model_meta.json
            values = [
                float(subset["main_score"]) for subsets in record["scores"].values() for subset in subsets
            ]
            name = str(record["task_name"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SelfposError(
                f"{file} is no result file of MTEB; remove it, and score the model again with `selfpos eval-mteb`"
            ) from None
        found.append(TaskScore(name, *(known.get(name) or _described(name)), fmean(values), file))
    return found


def _described(name: str) -> tuple[str, str]:
    import mteb

    from selfpos.evaluation.local_data import OWN_TASKS
    from selfpos.evaluation.tasks import KINDS

    if name in OWN_TASKS:
        _, kind, _, metric = KINDS[OWN_TASKS[name].kind]
        return kind, metric
    try:
        metadata = mteb.get_task(name).metadata
    except (KeyError, ValueError):
        return "other", "main score"
    return str(metadata.type), str(metadata.main_score)
