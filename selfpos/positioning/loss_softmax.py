"""LM-Cocktail (Xiao et al., arXiv 2311.13534, equation 2): weights from the loss of each specialist on a handful of examples."""

from __future__ import annotations

import torch

from selfpos.positioning.judge import Judge
from selfpos.positioning.objective import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.trajectory import Trajectory


def search(problem: Problem, judge: Judge | None, trajectory: Trajectory, *, seed: int) -> None:
    """c = softmax(−L_i / T): L_i is the mean loss over the tasks of specialist i alone, on one batch of `examples` records of each task
    (at least four, or a contrastive loss has nothing to contrast). One forward pass a specialist and no iteration.
    """
    settings = problem.settings
    batches = Draws(problem.tasks, max(4, settings.examples), seed, single=True).fixed(1)
    problem.measure_references(batches)
    values = []
    for place, name in enumerate(problem.names):
        alone = torch.zeros_like(problem.start)
        alone[0, place] = 1
        losses = problem.losses(alone, batches)
        values.append(problem.balance.value(losses))
        trajectory.step(
            place + 1, losses, [float(other == name) for other in problem.names], value=values[-1]
        )
    parameters = torch.zeros_like(problem.start)
    parameters[0] = torch.softmax(
        -torch.tensor(values, dtype=torch.float64) / settings.softmax_temperature, 0
    )
    if judge:
        problem.live.place(problem.table(parameters))
        trajectory.judge(len(values), parameters, judge.measure(problem.live))
    else:
        trajectory.latest(len(values), parameters, problem.losses(parameters, batches))
