"""Step imbalance between the tasks of text embeddings: joint training against merged specialists.

Every ρ and seed is a run of `selfpos.pipeline.run`. At equal draws the mixtures Total and Max of one ratio
are the same, so one rival stands for both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.console import log, log_to
from selfpos.data.sources import load_task
from selfpos.errors import SelfposError
from selfpos.evaluation.task_files import task_name
from selfpos.imbalance.study import sampling
from selfpos.imbalance.verdicts import Outcome, better
from selfpos.recipe import BudgetSettings, Recipe
from selfpos.storage.atomic import locked, write_text
from selfpos.storage.manifest import read_json

OVERSAMPLED, POSITIONED = "oversampled", "self-positioning"
MU = 0.5  # share of small tasks
# Optional: the rival that has seen every record that Self Positioning has.
WITH_PROBE = "oversampled-with-probe"
RIVALS = {OVERSAMPLED: "", WITH_PROBE: " on training and probe records"}
Measured = dict[str, Any]  # what was measured for one seed, as JSON holds it
Summaries = dict[str, tuple[float, float, float]]  # model → mean, worst task, mean of the small tasks


def check(recipe: Recipe) -> None:
    """Raise SelfposError unless `recipe` has equal draws, the verdict's two models and a measure per task."""
    faults = []
    if recipe.budget != BudgetSettings(equal="draws"):
        faults.append("needs 'budget: {equal: draws}'")
    if OVERSAMPLED not in recipe.joints:
        faults.append(f"needs a joint rival named '{OVERSAMPLED}'")
    if POSITIONED not in recipe.merges:
        faults.append(f"needs a merge named '{POSITIONED}'")
    if len(_evaluation_tasks(recipe)) != len(recipe.tasks):
        faults.append("must name one evaluation task for each task, in their order (tasks, then local)")
    if faults:
        raise SelfposError(f"recipe {recipe.name} " + "; ".join(faults))


def measure(
    recipe: Recipe, rhos: list[float], largest: int, folder: Path, data_root: Path | None, seed: int
) -> Measured:
    """By ρ: sizes, small tasks, lengths of the vectors, and every model's score × 100 on every task."""
    from selfpos.pipeline.run import run_recipe

    count = len(recipe.tasks)
    order = sampling.class_order("random", count, seed)
    sizes = {}
    for rho in rhos:
        ascending = sampling.class_sizes("step", count, largest, rho, MU)
        if ascending[0] < recipe.training.batch_size:
            raise SelfposError(
                f"at ratio {rho:g} a small task has {ascending[0]} records, less than a batch of "
                f"{recipe.training.batch_size}; raise --largest, or lower the batch size"
            )
        sizes[rho] = sampling.sizes_by_class(ascending, order).tolist()
    _check_records(recipe, [max(column) for column in zip(*sizes.values(), strict=True)], data_root, seed)
    values: Measured = {}
    for rho in rhos:
        sources = {
            name: source.model_copy(update={"limit": size + recipe.probe.per_task})
            for (name, source), size in zip(recipe.tasks.items(), sizes[rho], strict=True)
        }
        changes = {"name": f"{recipe.name}-rho{rho:g}-seed{seed}", "seed": seed, "tasks": sources}
        out = folder / f"rho-{rho:g}" / f"seed-{seed}"
        run = run_recipe(recipe.model_copy(update=changes), out, data_root=data_root)
        table = json.loads(run.table.read_text(encoding="utf-8"))["scores"]
        gram = np.array(json.loads(run.geometry.read_text(encoding="utf-8"))["gram"])
        tasks = _evaluation_tasks(recipe)
        values[f"{rho:g}"] = {
            "sizes": sizes[rho],
            "small": sorted(order[: sampling.minority_count(count, MU)].tolist()),
            "lengths": np.sqrt(np.diag(gram)).tolist(),
            "scores": {model: [100 * scores[task] for task in tasks] for model, scores in table.items()},
        }
    return values


def _check_records(recipe: Recipe, sizes: list[int], data_root: Path | None, seed: int) -> None:
    """Raise SelfposError when a task has fewer records than its size and its probe."""
    for (name, source), size in zip(recipe.tasks.items(), sizes, strict=True):
        needed = size + recipe.probe.per_task
        limited = source.model_copy(update={"limit": needed})
        if (available := len(load_task(limited, seed=seed, data_root=data_root).dataset)) < needed:
            raise SelfposError(
                f"task {name} has {available} records, but needs {needed} with its probe; lower --largest"
            )


def outcome(by_seed: list[Measured]) -> Outcome:
    """Mean, worst and small tasks by ρ and model; Self Positioning against oversampling."""
    rows, findings = [], []
    for rho in by_seed[0]:
        runs = [values[rho] for values in by_seed]
        summaries = [_summaries(run) for run in runs]
        for model in summaries[0]:
            columns = zip(*(summary[model] for summary in summaries), strict=True)
            rows.append([rho, model, *(f"{np.mean(column):.2f}" for column in columns)])
        ours = [summary[POSITIONED][0] for summary in summaries]
        for rival, data in RIVALS.items():
            if rival in summaries[0]:
                claim = (
                    f"ρ={rho}: Self Positioning is better than joint training with oversampling{data}, mean "
                    "of the tasks"
                )
                theirs = [summary[rival][0] for summary in summaries]
                findings.append(better(claim, ours, theirs))
        if float(rho) > 1:
            rows += [[rho, *row] for row in _by_large_tasks(runs, summaries)]
    return Outcome(
        "Imbalance between tasks",
        "merging fails where oversampling at equal draws lies within the interval",
        ["ρ", "model", "mean", "worst task", "small tasks"],
        rows,
        findings,
    )


def _summaries(run: Measured) -> Summaries:
    return {
        model: (float(np.mean(scores)), min(scores), float(np.mean([scores[task] for task in run["small"]])))
        for model, scores in run["scores"].items()
    }


def _by_large_tasks(runs: list[Measured], summaries: list[Summaries]) -> list[list[str]]:
    """Self Positioning minus oversampling, over the seeds that have the same large tasks."""
    # Specialists follow the base, in the tasks' order.
    names = list(runs[0]["scores"])[1 : 1 + len(runs[0]["sizes"])]
    groups: dict[str, list[np.ndarray]] = {}
    for run, summary in zip(runs, summaries, strict=True):
        large = [name for task, name in enumerate(names) if task not in run["small"]]
        gap = np.subtract(summary[POSITIONED], summary[OVERSAMPLED])
        groups.setdefault(", ".join(large), []).append(gap)
    rows = []
    for large_tasks, gaps in sorted(groups.items()):
        seeds = f"{len(gaps)} seed{'s' * (len(gaps) > 1)}"
        model = f"{POSITIONED} minus {OVERSAMPLED}, large: {large_tasks} ({seeds})"
        rows.append([model, *(f"{gap:+.2f}" for gap in np.mean(gaps, axis=0))])
    return rows


def _evaluation_tasks(recipe: Recipe) -> list[str]:
    """Names of the evaluation tasks in the run's table."""
    return [task_name(word) for word in [*recipe.evaluation.tasks, *recipe.evaluation.local]]


def over_seeds(
    file: Path, settings: Measured, seeds: int, measure: Callable[[int], Measured]
) -> list[Measured]:
    """What `measure` returns for seeds 0, 1, …; seeds that `file` has are not measured again."""
    settings = json.loads(json.dumps(settings))
    journal = file.with_suffix(".log")
    with log_to(journal), locked(journal):
        measured = _measured(file, settings) if file.exists() else {}
        for seed in range(seeds):
            if str(seed) not in measured:
                measured[str(seed)] = json.loads(json.dumps(measure(seed)))
                write_text(file, json.dumps({"settings": settings, "seeds": measured}, indent=1) + "\n")
                log.info("seed %d measured", seed)
    return [measured[str(seed)] for seed in range(seeds)]


def _measured(file: Path, settings: Measured) -> Measured:
    """Seed → what `file` holds of it. Raises SelfposError where other settings made it."""
    content = read_json(file)
    if not all(isinstance(content.get(key), dict) for key in ("settings", "seeds")):
        raise SelfposError(f"{file} holds no results of `selfpos imbalance compare`; name another by --out")
    stored = {"data": settings.get("data")} | content["settings"]  # of version 0.1: without data
    if changed := [key for key in settings if stored.get(key) != settings[key]]:
        raise SelfposError(f"{file} was made with other settings ({', '.join(changed)}); change --out")
    return content["seeds"]
