"""The paper's search: Adam on the parameters of the space, one batch of the probe a step (arXiv 2410.15035, section 3.3)."""

from __future__ import annotations

import torch

from selfpos.console import progress
from selfpos.positioning.objective import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.trajectory import Trajectory

SMALLEST_A = 1e-3  # the a_i of the chain only make sense above zero; a step below is taken back to here


def search(problem: Problem, validation: Draws | None, trajectory: Trajectory, *, seed: int) -> None:
    """Descend for `steps` steps, reporting to `trajectory`.

    With a validation part, the point kept is the one whose loss on fixed held-out batches is lowest, measured at the start and every
    `evaluate_every` steps: a minibatch is far too noisy to choose by. Without one, it is the last, as in the paper.
    """
    settings = problem.settings
    draws = Draws(problem.tasks, settings.batch_size, seed, single=settings.batches == "single")
    held_out = validation.fixed(settings.validation_records) if validation else []
    every = settings.evaluate_every or max(1, settings.steps // 20)
    parameters = problem.start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=settings.learning_rate)

    def judge(step: int) -> float:
        assert validation is not None
        losses = problem.losses(parameters, validation.tasks, held_out)
        value = sum(losses.values()) / len(losses)
        trajectory.judge(step, parameters, losses, value)
        return value

    with progress("positioning", settings.steps) as bar:
        if validation:
            judge(0)
        for step in range(1, settings.steps + 1):
            losses, gradient = problem.gradient(parameters, draws.next())
            trajectory.step(step, losses, problem.mean_coefficients(parameters.detach()).tolist(), gradient_norm=float(gradient.norm()))
            parameters.grad = gradient
            optimizer.step()
            if problem.space.positive and settings.positive:
                with torch.no_grad():
                    parameters[0, : len(problem.names)].clamp_(min=SMALLEST_A)
            if validation and (step % every == 0 or step == settings.steps):
                bar.advance(loss=sum(losses.values()) / len(losses), validation=judge(step))
            else:
                bar.advance(loss=sum(losses.values()) / len(losses))
                if not validation:
                    trajectory.latest(step, parameters, losses)
