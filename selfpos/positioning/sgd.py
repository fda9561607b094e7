"""The paper's search: Adam on the space's parameters, one batch a step (arXiv 2410.15035, section 3.3)."""

from __future__ import annotations

import torch

from selfpos.console import progress
from selfpos.positioning.draws import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Selection
from selfpos.positioning.trajectory import Trajectory

REFERENCE_RECORDS = 128  # of each task, on which the base's losses are measured
MEASUREMENTS = 20  # of points along the search, beside the start


def search(problem: Problem, selection: Selection | None, trajectory: Trajectory, *, seed: int) -> None:
    """Descend for `steps` steps, reporting to `trajectory`.

    With a validation part, the point kept is the best of those measured on it: the start, every twentieth of
    the steps and the end, because a minibatch is far too noisy to select by. Without one the last point is
    kept, as in the paper. `trajectory` also keeps what a killed search needs to continue with the same bits.
    """
    settings = problem.settings
    single = settings.batches == "single"
    draws = Draws(problem.tasks, settings.batch_size, seed, single=single)
    references = Draws(problem.tasks, settings.batch_size, seed, single=single)
    problem.measure_base(references.fixed(REFERENCE_RECORDS))
    every = max(1, settings.steps // MEASUREMENTS)
    parameters = problem.start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=settings.learning_rate)
    first = 1
    if kept := trajectory.kept.get("sgd"):
        parameters.data.copy_(kept["parameters"])
        optimizer.load_state_dict(kept["optimizer"])
        draws.restore(kept["draws"])
        problem.live.embedded = kept["texts"]
        first = kept["step"] + 1
    with progress("positioning", settings.steps) as bar:
        bar.advance(first - 1)
        if selection and first == 1:
            problem.apply(parameters)
            trajectory.measured(0, parameters, selection.measure(problem.live))
        for step in range(first, settings.steps + 1):
            losses, gradient = problem.gradient(parameters, draws.next())
            coefficients = problem.mean_coefficients(parameters.detach()).tolist()
            trajectory.step(step, losses, coefficients, gradient_norm=float(gradient.norm()))
            parameters.grad = gradient
            optimizer.step()
            bar.advance(loss=sum(losses.values()) / len(losses))
            if selection is None:
                trajectory.latest(step, parameters, losses)
            elif step % every == 0 or step == settings.steps:
                problem.apply(parameters)
                measurement = selection.measure(problem.live)
                trajectory.measured(step, parameters, measurement)
                bar.advance(0, validation=measurement.value)
            state = {
                "step": step,
                "parameters": parameters.detach(),
                "optimizer": optimizer.state_dict(),
                "draws": draws.state(),
                "texts": problem.live.embedded,
            }
            trajectory.keep(sparing=True, sgd=state)
