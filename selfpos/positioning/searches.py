"""The searches beside the linearised one: Adam as in the paper, CMA-ES, and LM-Cocktail."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.extras import need_extra
from selfpos.positioning.draws import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Selection
from selfpos.positioning.trajectory import Trajectory

REFERENCE_RECORDS = 128  # of each task in sgd, on which the base's losses are measured
MEASUREMENTS = 20  # of points along the search, beside the start
CANDIDATE_RECORDS = 256  # of each task that a candidate of cma-es is measured on
SIGMA = 0.3  # first standard deviation, in coefficients: about a third of a vector
EXAMPLES = 5  # of each task in loss-softmax, as in its paper
TEMPERATURE = 5.0  # of its softmax, as in its paper


def sgd(problem: Problem, selection: Selection | None, trajectory: Trajectory, *, seed: int) -> None:
    """The paper's search: Adam, one batch a step, for `steps` steps (arXiv 2410.15035, section 3.3).

    With a validation part, the point kept is the best of those measured on it: the start, every twentieth of
    the steps and the end. Without one the last point is kept, as in the paper.
    """
    settings = problem.settings
    single = settings.batches == "single"
    draws = Draws(problem.tasks, settings.batch_size, seed, single=single)
    references = Draws(problem.tasks, settings.batch_size, seed, single=single)
    problem.measure_base(references.fixed(REFERENCE_RECORDS))
    interval = max(1, settings.steps // MEASUREMENTS)
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
            elif step % interval == 0 or step == settings.steps:
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


def cma_library() -> Any:
    """The package `cma`. Raises SelfposError when it is not installed."""
    need_extra("search", "search cma-es")
    import cma

    return cma


def cma_es(problem: Problem, selection: Selection | None, trajectory: Trajectory, *, seed: int) -> None:
    """CMA-ES (Hansen, arXiv 1604.00772): at most `evaluations` candidates around the space's start.

    The best of each generation on fixed batches is measured on the validation part. The candidates follow
    from the seed and the values alone, so a killed search continues by the values that it kept.
    """
    cma, settings, start = cma_library(), problem.settings, problem.start
    batches = Draws(problem.tasks, CANDIDATE_RECORDS, seed, single=True).fixed(CANDIDATE_RECORDS)
    problem.measure_base(batches)
    if start.numel() < 2:
        raise SelfposError(
            "search cma-es needs two parameters at least; with a single vector use search: linearised"
        )
    kept = trajectory.kept.get("cma-es", {"values": [], "texts": problem.live.embedded})
    kept_values, problem.live.embedded = list(kept["values"]), kept["texts"]
    values: list[float] = []

    def evaluate(candidate: Tensor) -> float:
        if len(values) < len(kept_values):
            return float(kept_values[len(values)])
        losses = problem.losses(candidate, batches)
        value = problem.value(candidate, losses)
        coefficients = problem.mean_coefficients(candidate).tolist()
        trajectory.step(len(values) + 1, losses, coefficients, value=value, texts=problem.live.embedded)
        if selection is None and value < min(values, default=float("inf")):
            trajectory.latest(len(values) + 1, candidate, losses)
        return value

    # Hansen's default size of a generation, if the evaluations allow it; to cma a seed of 0 means the clock
    size = min(4 + int(3 * np.log(start.numel())), settings.evaluations)
    options = {"seed": seed + 1, "popsize": size, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(start.flatten().tolist(), SIGMA, options)
    with progress("positioning", settings.evaluations, unit="candidate") as bar:
        while len(values) + size <= settings.evaluations and not strategy.stop():
            points = strategy.ask()
            candidates = [torch.from_numpy(np.array(point)).reshape(start.shape) for point in points]
            for candidate in candidates:
                values.append(evaluate(candidate))
                bar.advance(1, value=min(values))
            generation = values[-size:]
            if len(values) > len(kept_values):
                if selection is not None:
                    best = candidates[int(np.argmin(generation))]
                    problem.apply(best)
                    trajectory.measured(len(values), best, selection.measure(problem.live))
                state = {"values": values, "texts": problem.live.embedded}
                trajectory.keep(sparing=True, **{"cma-es": state})
            strategy.tell(points, generation)


def loss_softmax(problem: Problem, selection: Selection | None, trajectory: Trajectory, *, seed: int) -> None:
    """LM-Cocktail (arXiv 2311.13534, equation 2): c = softmax(−L_i / 5), no iteration.

    L_i is the mean loss of specialist i over the tasks, on one batch of 5 records of each.
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
