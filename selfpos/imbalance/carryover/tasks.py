"""Step imbalance between the tasks of text-embedding training: joint training on every mixture against merged
specialists, at equal draws.

Every ρ and seed is a run of `selfpos.pipeline.run` of its own, with that many records a task beyond its
probe; which tasks are small is drawn from the seed. With draws held equal, Total and Max of one ratio are the
same mixture, so one rival stands for both.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from selfpos.errors import SelfposError
from selfpos.evaluation.task_files import task_name
from selfpos.imbalance.carryover.outcome import Outcome, Values, finding, mean
from selfpos.imbalance.study import profiles
from selfpos.recipe import BudgetSettings, Recipe

OVERSAMPLED, POSITIONED = "oversampled", "self-positioning"
KNOWING = "oversampled-with-probe"  # where a recipe has it, the rival that has seen every record that Self Positioning has


def check(recipe: Recipe) -> None:
    """Raise SelfposError when `recipe` cannot be compared: equal draws, the two models of the verdict, a
    measure for every task.
    """
    wrong = [
        (recipe.budget != BudgetSettings(equal="draws"), "needs 'budget: {equal: draws}'"),
        (OVERSAMPLED not in recipe.joints, f"needs a joint rival named '{OVERSAMPLED}'"),
        (POSITIONED not in recipe.merges, f"needs a merge named '{POSITIONED}'"),
        (
            len(_measured(recipe)) != len(recipe.tasks),
            "must name one evaluation task for each task, in their order (tasks, then local)",
        ),
    ]
    if faults := [fault for is_wrong, fault in wrong if is_wrong]:
        raise SelfposError(f"recipe {recipe.name} " + "; ".join(faults))


def measure(
    recipe: Recipe,
    rhos: list[float],
    mu: float,
    largest: int,
    folder: Path,
    data_root: Path | None,
    seed: int,
) -> Values:
    """By ρ: the sizes and small tasks, the lengths of the vectors, and the score × 100 of every model on
    every task, in the tasks' order.

    Raises SelfposError, before anything is trained, when a small task has fewer records than a batch, or the
    data fewer than a task is to have.
    """
    from selfpos.data.sources import load_task
    from selfpos.pipeline.run import run_recipe

    found: Values = {}
    measured = _measured(recipe)
    count, batch = len(recipe.tasks), recipe.training.batch_size
    for rho in rhos:
        if (least := int(profiles.class_sizes("step", count, largest, rho, mu).min())) < batch:
            raise SelfposError(
                f"at ratio {rho:g} a small task has {least} records, less than a batch of {batch}; raise "
                "--largest, or lower the batch size"
            )
    order = profiles.class_order("random", count, seed)
    sizes = {
        rho: profiles.sizes_by_class(profiles.class_sizes("step", count, largest, rho, mu), order).tolist()
        for rho in rhos
    }
    asked = {
        name: max(own[place] for own in sizes.values()) + recipe.probe.per_task
        for place, name in enumerate(recipe.tasks)
    }
    for name, source in recipe.tasks.items():
        limited = source.model_copy(update={"limit": asked[name]})
        if (there := len(load_task(limited, seed=seed, data_root=data_root).dataset)) < asked[name]:
            raise SelfposError(
                f"task {name} has {there} records, but {asked[name]} are asked (its probe among them); lower "
                "--largest"
            )
    for rho in rhos:
        sources = {
            name: source.model_copy(update={"limit": size + recipe.probe.per_task})
            for (name, source), size in zip(recipe.tasks.items(), sizes[rho], strict=True)
        }
        own = recipe.model_copy(
            update={"name": f"{recipe.name}-rho{rho:g}-seed{seed}", "seed": seed, "tasks": sources}
        )
        run = run_recipe(own, folder / f"rho-{rho:g}" / f"seed-{seed}", data_root=data_root)
        table = json.loads(run.table.read_text(encoding="utf-8"))["scores"]
        gram = np.array(json.loads(run.geometry.read_text(encoding="utf-8"))["gram"])
        found[f"{rho:g}"] = {
            "sizes": sizes[rho], "small": sorted(order[: profiles.minority_count(count, mu)].tolist()),
            "lengths": np.sqrt(np.diag(gram)).tolist(),
            "scores": {model: [100 * own_scores[task] for task in measured] for model, own_scores in table.items()},
        }  # fmt: skip
    return found


def outcome(found: list[Values]) -> Outcome:
    """Mean, worst and small tasks by ρ and model; Self Positioning against oversampling, in all and by what
    tasks are large.
    """
    rows, findings = [], []
    for rho in found[0]:
        runs = [one[rho] for one in found]
        of_seed = [
            {model: _summary(scores, run["small"]) for model, scores in run["scores"].items()} for run in runs
        ]
        for model in of_seed[0]:
            rows.append(
                [
                    rho,
                    model,
                    *(mean(list(values)) for values in zip(*(own[model] for own in of_seed), strict=True)),
                ]
            )
        for rival, told in ((OVERSAMPLED, ""), (KNOWING, " on training and probe records")):
            if rival in of_seed[0]:
                claim = f"ρ={rho}: Self Positioning is better than joint training with oversampling{told}, mean of the tasks"
                findings.append(
                    finding(
                        claim,
                        [own[POSITIONED][0] for own in of_seed],
                        [own[rival][0] for own in of_seed],
                        strict=True,
                    )
                )
        if float(rho) > 1:
            rows += [[rho, *row] for row in _by_large_tasks(runs, of_seed)]
    return Outcome(
        "Imbalance between tasks",
        "merging fails where oversampling at equal draws lies within the interval",
        ["ρ", "model", "mean", "worst task", "small tasks"],
        rows,
        findings,
    )


def _summary(scores: list[float], small: list[int]) -> tuple[float, float, float]:
    """Mean of all tasks, worst task, mean of the small tasks."""
    return float(np.mean(scores)), min(scores), float(np.mean([scores[task] for task in small]))


def _by_large_tasks(
    runs: list[Values], of_seed: list[dict[str, tuple[float, float, float]]]
) -> list[list[str]]:
    """Self Positioning minus oversampling, over the seeds that have the same large tasks.

    Specialists stand behind the base, in the tasks' order.
    """
    names = list(runs[0]["scores"])[1 : 1 + len(runs[0]["sizes"])]
    groups: dict[str, list[int]] = {}
    for seed, run in enumerate(runs):
        large = [name for place, name in enumerate(names) if place not in run["small"]]
        groups.setdefault(", ".join(large), []).append(seed)
    rows = []
    for together, seeds in sorted(groups.items()):
        gaps = np.mean(
            [np.subtract(of_seed[seed][POSITIONED], of_seed[seed][OVERSAMPLED]) for seed in seeds], axis=0
        )
        told = f"{POSITIONED} minus {OVERSAMPLED}, large: {together} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        rows.append([told, *(f"{gap:+.2f}" for gap in gaps)])
    return rows


def _measured(recipe: Recipe) -> list[str]:
    """Names of the evaluation tasks in the run's table."""
    return [task_name(word) for word in [*recipe.evaluation.tasks, *recipe.evaluation.local]]
