"""LM-Cocktail (Xiao et al., arXiv 2311.13534, equation 2): weights by each specialist's loss on examples."""

from __future__ import annotations

import torch

from selfpos.positioning.draws import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Selection
from selfpos.positioning.trajectory import Trajectory

EXAMPLES = 5  # of each task, as in the paper
TEMPERATURE = 5.0  # of the softmax, as in the paper


def search(problem: Problem, selection: Selection | None, trajectory: Trajectory, *, seed: int) -> None:
    """c = softmax(−L_i / 5): L_i is the mean loss of specialist i over the tasks, on one batch of 5 records
    of each.

    One forward pass a specialist and no iteration.
    """
    batches = Draws(problem.tasks, EXAMPLES, seed, single=True).fixed(1)
    problem.measure_base(batches)
    values = []
    for index, name in enumerate(problem.names):
        alone = torch.zeros_like(problem.start)
        alone[0, index] = 1
        losses = problem.losses(alone, batches)
        values.append(problem.balance.value(losses))
        one_hot = [float(other == name) for other in problem.names]
        trajectory.step(index + 1, losses, one_hot, value=values[-1])
    parameters = torch.zeros_like(problem.start)
    parameters[0] = torch.softmax(-torch.tensor(values, dtype=torch.float64) / TEMPERATURE, 0)
    if selection:
        problem.apply(parameters)
        trajectory.measured(len(values), parameters, selection.measure(problem.live))
    else:
        trajectory.latest(len(values), parameters, problem.losses(parameters, batches))
