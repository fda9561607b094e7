"""The scores to compare, by run, by model or by folder of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, load_recipe
from selfpos.scores.files import LAST, TaskScore, known_tasks, read_result, read_scores
from selfpos.storage.file_kinds import ADAPTER, CONFIG, MODULES
from selfpos.storage.hashing import REVISION_LENGTH, content_hash
from selfpos.storage.locate import hub_snapshot, locate_model
from selfpos.storage.manifest import read_manifest
from selfpos.storage.run_folder import RunFolder

MODEL_FILES = (MODULES, CONFIG, ADAPTER)  # a model folder has one of them


@dataclass(frozen=True)
class Scored:
    """A model's scores: run → task → score; runs differ in the seed. A model outside a run has the run ''.

    `folder` is the model's, where it was named by it or by its name on the Hub, and `revision` its commit
    there, else the beginning of its content hash.
    """

    name: str
    runs: Mapping[str, Mapping[str, TaskScore]]
    folder: Path | None = None
    revision: str | None = None


def find_models(names: Sequence[str], scores: Path, *, unscored: bool = False) -> list[Scored]:
    """The models that `names` stand for.

    A name is a run (all of its models), a folder of scores or of such folders, or a model (folder or Hub
    name) scored below `scores`. A model of several runs that differ only in the seed is one model with
    several runs. With `unscored`, a model without scores has no runs; else it raises SelfposError.
    """
    unique = list(dict.fromkeys(names))
    runs = [name for name in unique if (Path(name) / "recipe.yaml").is_file()]
    models = _models_of_runs([RunFolder(Path(name)) for name in runs])
    for name in unique:
        if name in runs:
            continue
        if folders := _score_folders(Path(name)):
            models += [model for folder in folders for model in _models_of_folder(folder)]
        else:
            models.append(_model(name, scores, unscored=unscored))
    titles = [model.name for model in models]
    for title in titles:
        if titles.count(title) > 1:
            raise SelfposError(
                f"two of the models to compare are called '{title}'; compare them separately, or rename one"
            )
    return models


def base_among(models: Sequence[Scored]) -> str | None:
    """The model from which others of `models` were made, by the commit or hash that they recorded; None where
    it is not among them. A model that records a base itself is none.
    """
    records = {model.name: read_manifest(model.folder).get("base") for model in models if model.folder}
    recorded = set()
    for record in filter(None, records.values()):
        recorded |= {record.get("revision"), (record.get("hash") or "")[:REVISION_LENGTH]}
    for model in models:
        if model.revision and model.revision in recorded and not records.get(model.name):
            return model.name
    return None


def _score_folders(folder: Path) -> list[Path]:
    """`folder` where eval-mteb scored into it, else the folders in it where it did; none for a model, which
    may have others' results beside its weights.
    """
    if any((folder / name).is_file() for name in MODEL_FILES):
        return []
    if (folder / "results").is_dir():
        return [folder]
    return sorted(results.parent for results in folder.glob("*/results") if results.is_dir())


def models_of_run(folder: RunFolder, recipe: Recipe) -> dict[str, dict[str, TaskScore]]:
    """Model → task → score of what has been scored in the run `folder`, in the order of its tables."""
    folders = {name: folder.scores(name) for name in ("base", *recipe.trained, *recipe.merges)}
    return {name: read_scores(path) for name, path in folders.items() if (path / LAST).is_file()}


def _models_of_runs(runs: Sequence[RunFolder]) -> list[Scored]:
    """The models of `runs`: those that differ only in the seed as one, others of one name as `run/model`."""
    by_name: dict[str, dict[str, Mapping[str, TaskScore]]] = {}
    settings_of: dict[str, Any] = {}
    seeds: dict[str, list[int]] = {}
    for run in runs:
        recipe = load_recipe(run.recipe)
        models = models_of_run(run, recipe)
        if not models:
            raise SelfposError(f"the run {run.path} has no scores yet")
        for model, scores in models.items():
            settings = _settings(recipe, model)
            same = settings_of.setdefault(model, settings) == settings
            name = model if same else f"{run.path.name}/{model}"
            if model != "base" and recipe.seed in seeds.get(name, []):
                raise SelfposError(
                    f"two runs made '{model}' with the same settings and seed {recipe.seed}; leave out one"
                )
            seeds.setdefault(name, []).append(recipe.seed)
            by_name.setdefault(name, {})[str(run.path)] = scores
    return [Scored(name, by_run) for name, by_run in by_name.items()]


def _settings(recipe: Recipe, model: str) -> dict[str, Any]:
    """Everything that made `model`, except the seed."""
    settings: dict[str, Any] = {"base": recipe.base}
    if model != "base":
        tasks = [model] if model in recipe.tasks else list(recipe.tasks)
        settings["training"] = recipe.training.model_dump()
        settings["probe"] = recipe.probe.model_dump()
        settings["tasks"] = {task: recipe.tasks[task].model_dump() for task in tasks}
    if model in recipe.joints:
        settings["joint"] = recipe.joints[model].model_dump()
    for part in ("iterative", "bagging", "budget"):
        if getattr(recipe, part) is not None:
            settings[part] = getattr(recipe, part).model_dump()
    if model in recipe.merges:
        settings["merge"] = recipe.merges[model].model_dump()
    return settings


def _model(name: str, scores: Path, *, unscored: bool) -> Scored:
    """One model: scored in the run that it is part of, else by its content hash or commit below `scores`."""
    folder = locate_model(name)
    if not any((folder / file).is_file() for file in MODEL_FILES):
        raise SelfposError(f"{name} is no run, no model, and no folder of scores: it has no results/")
    for parent in folder.resolve().parents[:2]:
        run = RunFolder(parent)
        if run.recipe.is_file() and (run.scores(folder.name) / LAST).is_file():
            return Scored(folder.name, {"": read_scores(run.scores(folder.name))}, folder)
    by_task: dict[str, TaskScore] = {}
    # of a model of the Hub by its commit
    revision = hub_snapshot(folder).get("revision") or content_hash(folder)[:REVISION_LENGTH]
    for results in sorted(scores.glob(f"results/*/{revision}")):
        by_task |= _scores(results, known_tasks(scores))
    if not by_task and not unscored:
        raise SelfposError(
            f"{name} has no scores in {scores}: score it with `selfpos eval-mteb {name} --out {scores}`, "
            "or name the folder with --scores"
        )
    return Scored(Path(name).name, {"": by_task} if by_task else {}, folder, revision)


def _models_of_folder(folder: Path) -> list[Scored]:
    """Every model in a folder of scores."""
    kinds = known_tasks(folder)
    paths = sorted(path for path in folder.glob("results/*/*") if path.is_dir())
    names = [path.parent.name.rpartition("__")[2] for path in paths]
    models = []
    for path, name in zip(paths, names, strict=True):
        scores = _scores(path, kinds)
        if scores:
            title = name if names.count(name) == 1 else f"{name}@{path.name[:8]}"
            models.append(Scored(title, {"": scores}, revision=path.name))
    if not models:
        raise SelfposError(
            f"there are no scores in {folder}: it has no results/MODEL/REVISION/TASK.json with a number "
            "for a score"
        )
    return models


def _scores(folder: Path, kinds: Mapping[str, tuple[str, str]]) -> dict[str, TaskScore]:
    """Task → score in `folder`, results/MODEL/REVISION."""
    from selfpos.evaluation.tasks import describe_task

    scores = {}
    for file in sorted(folder.glob("*.json")):
        result = read_result(file)
        if result is None:
            continue  # model_meta.json, or no number
        task = describe_task(result.task, kinds.get(result.task))
        kind, metric = task.type or "other", task.metric or "main score"
        scores[task.name] = TaskScore(task.name, kind, metric, result.mean, file)
    return scores
