"""What only the report shows of a run: intervals, costs, and what every model was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfpos.report.results import Cost, RunResults
from selfpos.storage.manifest import read_manifest
from selfpos.storage.run_folder import RunFolder


def with_details(results: RunResults, folder: RunFolder) -> RunResults:
    """`results` with intervals, costs and origins."""
    from selfpos.comparison import Scored, compare, models_of_run

    models = []
    for name, run in models_of_run(folder, results.recipe).items():
        scores = {task: score for task, score in run.items() if task in results.tasks}
        if scores:
            models.append(Scored(name, {"": scores}))
    comparison = compare(models) if len(models) > 1 else None
    optional = []
    if not folder.analysis.is_file():
        optional.append("conflicts between the tasks' gradients (selfpos analyse)")
    if models and (comparison is None or comparison.notes):
        optional.append("intervals of all scores (score again, so that the examples behind them are kept)")
    return replace(
        results,
        optional=optional,
        comparison=comparison,
        costs=costs_of(results, folder),
        origins=_origins(results, folder),
    )


def costs_of(results: RunResults, folder: RunFolder) -> list[Cost]:
    """The costs of all models, from the records of jobs, the manifests and the searches."""
    costs = []
    for name in results.models:
        kind = results.kind(name)
        job = "joint" if name == "joint" else f"{kind if name in results.recipe.trained else 'merge'}.{name}"
        manifest, draws = _manifest(folder, kind, name), None
        if manifest.get("samples") is not None:
            draws = f"{manifest['samples']:,} samples"
        elif name in results.searches and results.searches[name].position.get("texts") is not None:
            draws = f"{results.searches[name].position['texts']:,} texts"
        seconds, scoring = results.seconds.get(job), results.seconds.get(f"scores.{name}")
        costs.append(Cost(name, kind, seconds, seconds, draws, manifest.get("peak_memory_bytes"), scoring))
    seconds_of = {cost.model: cost.seconds for cost in costs}
    with_totals = []
    for cost in costs:
        names = [*_inputs(results, cost.model), cost.model]
        with_totals.append(replace(cost, total=_sum_if_known([seconds_of.get(name) for name in names])))
    return with_totals


def _inputs(results: RunResults, name: str) -> list[str]:
    """The models that `name` was made from: those that a merge merges, or the stages before a stage."""
    recipe = results.recipe
    stages = list(recipe.stages)
    inputs: list[str] = stages[: stages.index(name)] if name in stages else []
    if name in recipe.merges:
        pipelines = {"separate": list(recipe.tasks), "iterative": stages, "bagging": list(recipe.bags)}
        inputs = pipelines[recipe.merges[name].vectors]
    return [model for model in inputs if model in recipe.trained]


def _sum_if_known(seconds: Sequence[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None


def _origins(results: RunResults, folder: RunFolder) -> list[tuple[str, str, str]]:
    """Model, how it was made, and the hashes of its inputs, of every model with a manifest."""
    origins = []
    for name in results.models[1:]:
        manifest = _manifest(folder, results.kind(name), name)
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
        inputs = inputs or [f"{entry['name']} {entry['hash'][:12]}" for entry in merge.get("sources") or ()]
        origins.append((name, f"{method}, seed {manifest.get('seed', merge.get('seed'))}", ", ".join(inputs)))
    return origins


def _manifest(folder: RunFolder, kind: str, name: str) -> dict[str, Any]:
    paths = {
        "specialist": folder.specialist(name),
        "joint": folder.rival(name),
        "iterative": folder.stage(name),
        "bagging": folder.bag(name),
    }
    path = paths.get(kind, folder.merged(name))
    return (read_manifest(path) or {}) if path.is_dir() and kind != "base" else {}
