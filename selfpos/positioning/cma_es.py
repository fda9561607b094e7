"""CMA-ES (Hansen, arXiv 1604.00772) over the parameters of the space: forward passes only, for a few coefficients and any fitness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfpos.errors import SelfposError
from selfpos.positioning.judge import Judge
from selfpos.positioning.objective import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.replay import Replay
from selfpos.positioning.trajectory import Trajectory

RECORDS = 256  # of each task that a candidate is measured on


def library() -> Any:
    """The package `cma`. Raises SelfposError when it is not installed."""
    try:
        import cma
    except ImportError:
        raise SelfposError("search cma-es needs the package cma: pip install 'selfpos[search]'") from None
    return cma


def search(problem: Problem, judge: Judge | None, trajectory: Trajectory, *, seed: int) -> None:
    """At most `evaluations` candidates from the space's start. Fitness `loss` is the objective on fixed batches of the search part, and the
    best candidate of each generation is then judged; fitness `measure` is the judge's value itself, so that the search refines by it.

    Raises SelfposError when the package `cma` is not installed, or there is only one parameter.
    """
    settings = problem.settings
    batches = Draws(problem.tasks, RECORDS, seed, single=True).fixed(RECORDS)
    problem.measure_references(batches)

    def fitness(candidate: Tensor, number: int) -> float:
        losses = problem.losses(candidate, batches)
        value = problem.value(candidate, losses)
        trajectory.step(
            number,
            losses,
            problem.mean_coefficients(candidate).tolist(),
            value=value,
            texts=problem.live.embedded,
        )
        if judge is None:
            if value < min(measured.values, default=float("inf")):
                trajectory.latest(number, candidate, losses)
        elif settings.fitness == "measure":
            value = judged(candidate, number)
        return value

    def judged(candidate: Tensor, number: int) -> float:
        assert judge is not None
        problem.live.place(problem.table(candidate))
        judgement = judge.measure(problem.live)
        trajectory.judge(number, candidate, judgement)
        return judgement.value

    measured = Replay("cma-es", fitness, trajectory, problem.live)
    champions = Replay(
        "cma-es-champions", lambda candidate, _: judged(candidate, measured.asked), trajectory, problem.live
    )

    def generation(candidates: Sequence[Tensor], values: Sequence[float]) -> None:
        if judge and settings.fitness == "loss":
            champions(candidates[int(np.argmin(values))])

    with measured.shown("positioning", settings.evaluations):
        evolve(
            measured,
            problem.start,
            settings.sigma,
            settings.evaluations,
            seed,
            problem.admissible,
            generation,
        )


def evolve(
    fitness: Replay,
    start: Tensor,
    sigma: float,
    evaluations: int,
    seed: int,
    admissible: Callable[[Tensor], Tensor],
    generation: Callable[[Sequence[Tensor], Sequence[float]], None] = lambda candidates, values: None,
) -> None:
    """Generations of candidates shaped as `start`, each brought into bounds by `admissible`, as many as `evaluations` allow or until it stands still.

    `generation` is told each one. Raises SelfposError when the package `cma` is not installed, or there is only one parameter.
    """
    cma = library()
    if start.numel() < 2:
        raise SelfposError(
            "search cma-es needs two parameters at least; with a single vector use search: linearised"
        )
    size = min(
        4 + int(3 * np.log(start.numel())), evaluations
    )  # of a generation: Hansen's default, where there are as many evaluations
    # a seed of 0 means "take the clock" to cma
    strategy = cma.CMAEvolutionStrategy(
        start.flatten().tolist(), sigma, {"seed": seed + 1, "popsize": size, "verbose": -9}
    )
    while fitness.asked + size <= evaluations and not strategy.stop():
        asked = strategy.ask()
        candidates = [admissible(torch.from_numpy(np.array(x)).reshape(start.shape)) for x in asked]
        values = [fitness(candidate) for candidate in candidates]
        generation(candidates, values)
        strategy.tell(asked, values)
