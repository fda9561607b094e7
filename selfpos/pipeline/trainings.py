"""Which trainings a recipe asks for, grouped by pipeline, and how long each takes: all of it known before
anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfpos.recipe import MixtureSettings, Recipe
from selfpos.storage.run_folder import RunFolder

SEPARATE, ITERATIVE, BAGGING = "separate", "iterative", "bagging"


@dataclass(frozen=True)
class Training:
    """One model to be trained. `name` is what tables call it, `job` its job; `steps` None means by epochs.

    `start` is the training whose model this one continues, `share` the part of each task's records that it
    sees, and `variant` is added to the seed. `on_probe`: its records include those of the probe set.
    """

    name: str
    job: str
    out: Path
    tasks: tuple[str, ...]
    steps: int | None
    mixture: MixtureSettings | None = None
    start: Training | None = None
    share: float = 1.0
    variant: int = 0
    on_probe: bool = False


def plan_trainings(recipe: Recipe, folder: RunFolder, sizes: Mapping[str, int]) -> dict[str, list[Training]]:
    """Pipeline → its trainings, in order: `separate`, each joint rival by its name, `iterative`, `bagging`.

    `sizes` are the training records of each task. With a budget in the recipe every pipeline gets what the
    specialists take together. A training may be of two pipelines: the first of the iterative one is that
    task's specialist, unless it has other steps.
    """
    alone = _specialist_steps(recipe, sizes)
    separate = {
        task: Training(task, f"specialist/{task}", folder.specialist(task), (task,), alone[task])
        for task in recipe.tasks
    }
    pipelines = {SEPARATE: list(separate.values())}
    tasks = tuple(recipe.tasks)
    together = sum(steps or 0 for steps in alone.values()) or None
    for name, joint in recipe.joints.items():
        steps = joint.steps or _joint_steps(recipe, joint, together)
        job = "joint" if name == "joint" else f"joint/{name}"
        pipelines[name] = [
            Training(name, job, folder.rival(name), tasks, steps, joint, on_probe=joint.on_probe)
        ]
    if recipe.iterative is not None:
        pipelines[ITERATIVE] = _stages(recipe, folder, separate)
    if recipe.bagging is not None:
        total = recipe.bagging.steps or (together if recipe.budget else None)
        steps_of = _split(total, recipe.bagging.shares) if total else [
            max(1, round(share * together)) if together else None for share in recipe.bagging.shares
        ]  # fmt: skip
        pipelines[BAGGING] = [
            Training(
                name,
                f"bagging/{name}",
                folder.bag(name),
                tasks,
                steps,
                recipe.bagging,
                share=share,
                variant=number,
            )
            for number, ((name, share), steps) in enumerate(
                zip(recipe.bags.items(), steps_of, strict=True), start=1
            )
        ]
    return pipelines


def _specialist_steps(recipe: Recipe, sizes: Mapping[str, int]) -> dict[str, int | None]:
    training = recipe.training
    if training.steps or recipe.budget is None:
        return dict.fromkeys(recipe.tasks, training.steps)
    return {task: max(1, round(training.epochs * sizes[task] / training.batch_size)) for task in recipe.tasks}


def _joint_steps(recipe: Recipe, joint: MixtureSettings, together: int | None) -> int | None:
    """As many batches as the specialists take together; a step of surgery has one of every task, unless steps
    are what is held equal.
    """
    batches_equal = recipe.budget is None or recipe.budget.equal == "draws"
    return (
        max(1, round(together / len(recipe.tasks)))
        if together and joint.surgery and batches_equal
        else together
    )


def _stages(recipe: Recipe, folder: RunFolder, separate: Mapping[str, Training]) -> list[Training]:
    assert recipe.iterative is not None
    stages: list[Training] = []
    for name, task in recipe.stages.items():
        steps = recipe.iterative.steps or separate[task].steps
        if not stages and steps == separate[task].steps:
            stages.append(separate[task])
        else:
            start = stages[-1] if stages else None
            stages.append(
                Training(name, f"iterative/{name}", folder.stage(name), (task,), steps, start=start)
            )
    return stages


def _split(total: int, shares: list[float]) -> list[int]:
    """`total` in whole numbers in proportion to `shares`, one at least of each."""
    ends = [round(total * sum(shares[: index + 1]) / sum(shares)) for index in range(len(shares))]
    return [max(1, end - begin) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
