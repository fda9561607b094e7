"""The paper's search: Adam on the parameters of the space, one batch of the probe a step (arXiv 2410.15035, section 3.3)."""

from __future__ import annotations

import torch

from selfpos.console import progress
from selfpos.positioning.judge import Judge
from selfpos.positioning.objective import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.trajectory import Trajectory

REFERENCE_RECORDS = 128  # of each task, on which the losses that others are divided by are measured
SMALLEST_A = 1e-3  # the a_i of the chain only make sense above zero; a step below is taken back to here


def search(problem: Problem, judge: Judge | None, trajectory: Trajectory, *, seed: int) -> None:
    """Descend for `steps` steps, reporting to `trajectory`.

    With a validation part, the point kept is the best that the judge has seen: at the start, every `evaluate_every` steps and at the end.
    A minibatch is far too noisy to choose by. The search ends early after `patience` judgements without a better one. Without a
    validation part the last point is kept, as in the paper.
    """
    settings = problem.settings
    draws = Draws(problem.tasks, settings.batch_size, seed, single=settings.batches == "single")
    problem.measure_references(Draws(problem.tasks, settings.batch_size, seed, single=draws.single).fixed(REFERENCE_RECORDS))
    every = settings.evaluate_every or max(1, settings.steps // 20)
    parameters = problem.start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=settings.learning_rate)
    waited = 0
    with progress("positioning", settings.steps) as bar:
        if judge:
            problem.live.place(problem.table(parameters.detach()))
            trajectory.judge(0, parameters, judge.measure(problem.live))
        for step in range(1, settings.steps + 1):
            losses, gradient = problem.gradient(parameters, draws.next())
            coefficients = problem.mean_coefficients(parameters.detach()).tolist()
            trajectory.step(step, losses, coefficients, gradient_norm=float(gradient.norm()))
            parameters.grad = gradient
            optimizer.step()
            if problem.space.positive and settings.positive:
                with torch.no_grad():
                    parameters[0, : len(problem.names)].clamp_(min=SMALLEST_A)
            bar.advance(loss=sum(losses.values()) / len(losses))
            if judge is None:
                trajectory.latest(step, parameters, losses)
            elif step % every == 0 or step == settings.steps:
                problem.live.place(problem.table(parameters.detach()))
                judgement = judge.measure(problem.live)
                waited = 0 if trajectory.judge(step, parameters, judgement) else waited + 1
                bar.advance(0, validation=judgement.value)
                if settings.patience and waited >= settings.patience:
                    return
