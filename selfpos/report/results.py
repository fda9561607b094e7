"""What a run left on disk, read back for tables and figures. What is missing is named in `missing`."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from selfpos.comparison import Comparison, Scored, compare, models_of_run
from selfpos.comparison.tables import Grid, Line, percent, terminal
from selfpos.errors import SelfposError
from selfpos.recipe import Recipe, load_recipe
from selfpos.storage.manifest import read_json, read_manifest
from selfpos.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Search:
    """One search for coefficients: its result and its steps."""

    position: dict[str, Any]
    trajectory: list[dict[str, Any]]


@dataclass(frozen=True)
class Cost:
    """What one model cost; None where unknown.

    `seconds` are for making it, `total` with all that it was made from. `draws` are samples of training data
    or texts that a search embedded; `memory` is the peak in bytes.
    """

    model: str
    kind: str
    seconds: float | None
    total: float | None
    draws: str | None
    memory: float | None
    scoring: float | None


@dataclass(frozen=True)
class RunResults:
    """The results of a run; `missing` is what it has yet to make.

    `scores` maps model → task → main score in 0..1, `tasks` task → {"type", "metric"}, `pipelines` pipeline →
    what its trainings took, of which `equal` was held equal.
    """

    folder: RunFolder
    recipe: Recipe
    tasks: dict[str, dict[str, str]]
    scores: dict[str, dict[str, float]]
    vectors: list[str]
    gram: list[list[float]]
    searches: dict[str, Search]
    missing: list[str] = field(default_factory=list)
    pipelines: dict[str, dict[str, float]] = field(default_factory=dict)
    equal: str | None = None

    @property
    def models(self) -> list[str]:
        return ["base", *self.recipe.trained, *self.recipe.merges]

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Job → the seconds it took; jobs of merges that the recipe no longer has stay in the folder."""
        names = {"joint", *self.models}
        seconds = {}
        for file in sorted((self.folder.path / "jobs").glob("*.json")):
            _, dot, model = file.stem.partition(".")
            if not dot or model in names:
                seconds[file.stem] = read_json(file)["seconds"]
        return seconds

    @cached_property
    def comparison(self) -> Comparison | None:
        """The differences to the base with intervals; None for fewer than two models."""
        return compare(self.scored) if len(self.scored) > 1 else None

    @cached_property
    def scored(self) -> list[Scored]:
        """The models that have scores on tasks of the run."""
        models = []
        for name, run in models_of_run(self.folder, self.recipe).items():
            scores = {task: score for task, score in run.items() if task in self.tasks}
            if scores:
                models.append(Scored(name, {"": scores}))
        return models

    @property
    def baseline(self) -> str:
        return self.comparison.baseline if self.comparison else "base"

    @property
    def optional(self) -> list[str]:
        """What other commands could add."""
        optional = []
        if not self.folder.analysis.is_file():
            optional.append("conflicts between the tasks' gradients (selfpos analyse)")
        if self.scores and (self.comparison is None or self.comparison.notes):
            optional.append(
                "intervals of all scores (score again, so that the examples behind them are kept)"
            )
        return optional

    @cached_property
    def costs(self) -> list[Cost]:
        """The costs of all models, from the records of jobs, the manifests and the searches."""
        costs = []
        for name in self.models:
            manifest, draws = self._manifest(name), None
            texts = self.searches[name].position.get("texts") if name in self.searches else None
            if manifest.get("samples") is not None:
                draws = f"{manifest['samples']:,} samples"
            elif texts is not None:
                draws = f"{texts:,} texts"
            parts = [self._seconds_for(model) for model in [*_inputs(self.recipe, name), name]]
            measured = [part for part in parts if part is not None]
            total = sum(measured) if len(measured) == len(parts) else None
            memory, scoring = manifest.get("peak_memory_bytes"), self.seconds.get(f"scores.{name}")
            costs.append(Cost(name, self.kind(name), parts[-1], total, draws, memory, scoring))
        return costs

    @property
    def origins(self) -> list[tuple[str, str, str]]:
        """Model, how it was made, and the hashes of its inputs, of every model with a manifest."""
        origins = []
        for name in self.models:
            manifest = self._manifest(name)
            if not manifest:
                continue
            merge = manifest.get("merge") or {}
            method = merge.get("method") or manifest.get("kind", "")
            if "positioning" in manifest:
                method = f"self-positioning, applied by {method}"
            inputs = [
                f"{task}: {entry['records']:,} records {entry['hash'][:12]}"
                for task, entry in (manifest.get("tasks") or {}).items()
            ]
            inputs += [f"{entry['name']} {entry['hash'][:12]}" for entry in merge.get("sources") or ()]
            seed = manifest.get("seed", merge.get("seed"))
            origins.append((name, f"{method}, seed {seed}", ", ".join(inputs)))
        return origins

    def mean(self, model: str) -> float | None:
        """Mean over all tasks of the run; None while one is missing."""
        scores = self.scores.get(model, {})
        return sum(scores.values()) / len(scores) if len(scores) == len(self.tasks) and scores else None

    def kind(self, model: str) -> str:
        """Its role in figures; `positioned` is a merge whose coefficients were searched for."""
        trained: dict[str, Collection[str]] = {
            "base": ("base",),
            "specialist": self.recipe.tasks,
            "joint": self.recipe.joints,
            "iterative": self.recipe.stages,
            "bagging": self.recipe.bags,
        }
        kinds = [kind for kind, names in trained.items() if model in names]
        if kinds:
            return kinds[0]
        return "positioned" if self.recipe.merges[model].search else "merge"

    def _seconds_for(self, model: str) -> float | None:
        jobs = [job.replace("/", ".") for job in self.folder.places(model).values()]
        return next((self.seconds[job] for job in jobs if job in self.seconds), None)

    def _manifest(self, model: str) -> dict[str, Any]:
        """What made the model; empty where it is not made."""
        path = next((path for path in self.folder.places(model) if path.is_dir()), None)
        return read_manifest(path) if path else {}


def _inputs(recipe: Recipe, name: str) -> list[str]:
    """The models that `name` was made from: those that a merge merges, or the stages before a stage."""
    stages = list(recipe.stages)
    inputs: list[str] = stages[: stages.index(name)] if name in stages else []
    if name in recipe.merges:
        pipelines = {"separate": list(recipe.tasks), "iterative": stages, "bagging": list(recipe.bags)}
        inputs = pipelines[recipe.merges[name].vectors]
    return [model for model in inputs if model in recipe.trained]


def read_results(folder: RunFolder) -> RunResults:
    """Read the run in `folder`; raises SelfposError when it is no run."""
    if not folder.recipe.is_file():
        raise SelfposError(
            f"{folder.path} is no run: it has no {folder.recipe.name}. 'selfpos compare' shows models or a "
            "folder of scores beside each other; 'selfpos push MODEL USER/NAME --dry-run' shows how one "
            "model was made"
        )
    recipe = load_recipe(folder.recipe)
    missing: list[str] = []
    tasks, scores = _scores(folder, recipe, missing)
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
    return RunResults(
        folder=folder,
        recipe=recipe,
        tasks=tasks,
        scores=scores,
        vectors=geometry["names"],
        gram=geometry["gram"],
        searches=searches,
        missing=missing,
        pipelines=took["pipelines"],
        equal=took["equal"],
    )


def _scores(
    folder: RunFolder, recipe: Recipe, missing: list[str]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, float]]]:
    """The run's table; until it is written, what has been scored so far."""
    if folder.table.is_file():
        table = read_json(folder.table)
        return table["tasks"], table["scores"]
    runs = models_of_run(folder, recipe)
    unscored = [model for model in ("base", *recipe.trained, *recipe.merges) if model not in runs]
    absent = f"scores of {', '.join(unscored)}" if unscored else "the table of the run"
    missing.append(absent if runs else "scores of all models")
    tasks: dict[str, dict[str, str]] = {}
    for run in runs.values():
        tasks |= {task: {"type": score.type, "metric": score.metric} for task, score in run.items()}
    scores = {model: {task: score.main_score for task, score in run.items()} for model, run in runs.items()}
    return tasks, scores


def make_table(results: RunResults) -> Grid:
    """Models as rows; the tasks, noted with their metrics, and their mean as columns."""
    tasks = list(results.tasks)
    values = {
        model: [*(scores.get(task) for task in tasks), results.mean(model)]
        for model, scores in results.scores.items()
    }
    rows = [Line(model, results.kind(model), cells) for model, cells in percent(values).items()]
    title = f"{results.recipe.name}: scores in percent, * best of its column"
    return Grid(title, [*tasks, "mean"], [*(results.tasks[task]["metric"] for task in tasks), ""], rows)


def score_table(folder: RunFolder) -> str:
    """The table of the run in `folder` as text for a terminal."""
    return terminal(make_table(read_results(folder)))
