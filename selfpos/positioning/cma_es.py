"""CMA-ES (Hansen, arXiv 1604.00772) over the parameters of the space, by forward passes only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.positioning.draws import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Selection
from selfpos.positioning.trajectory import Trajectory

RECORDS = 256  # of each task that a candidate is measured on
SIGMA = 0.3  # first standard deviation, in coefficients: about a third of a vector


def library() -> Any:
    """The package `cma`. Raises SelfposError when it is not installed."""
    try:
        import cma
    except ImportError:
        raise SelfposError("search cma-es needs the package cma: pip install 'selfpos[search]'") from None
    return cma


def search(problem: Problem, selection: Selection | None, trajectory: Trajectory, *, seed: int) -> None:
    """At most `evaluations` candidates around the space's start, measured by the objective on fixed batches.

    The best candidate of each generation is measured on the validation part. The candidates follow from the
    seed and the values alone, so a killed search continues by the values that it kept. Raises SelfposError
    when the package `cma` is not installed, or there is only one parameter.
    """
    cma, settings, start = library(), problem.settings, problem.start
    batches = Draws(problem.tasks, RECORDS, seed, single=True).fixed(RECORDS)
    problem.measure_base(batches)
    if start.numel() < 2:
        raise SelfposError(
            "search cma-es needs two parameters at least; with a single vector use search: linearised"
        )
    kept = trajectory.kept.get("cma-es", {"values": [], "texts": problem.live.embedded})
    known, problem.live.embedded = list(kept["values"]), kept["texts"]
    values: list[float] = []

    def evaluate(candidate: Tensor) -> float:
        if len(values) < len(known):
            return float(known[len(values)])
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
            if len(values) > len(known):
                if selection is not None:
                    best = candidates[int(np.argmin(generation))]
                    problem.apply(best)
                    trajectory.measured(len(values), best, selection.measure(problem.live))
                trajectory.keep(
                    sparing=True, **{"cma-es": {"values": values, "texts": problem.live.embedded}}
                )
            strategy.tell(points, generation)
