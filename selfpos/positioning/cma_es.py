"""CMA-ES (Hansen, arXiv 1604.00772) over the parameters of the space: forward passes only, for a few coefficients and any fitness."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.positioning.judge import Judge
from selfpos.positioning.objective import Draws
from selfpos.positioning.problem import Problem
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
    cma = library()
    settings = problem.settings
    if problem.start.numel() < 2:
        raise SelfposError("search cma-es needs two parameters at least; with a single vector use search: linearised")
    batches = Draws(problem.tasks, RECORDS, seed, single=True).fixed(RECORDS)
    problem.measure_references(batches)
    # a seed of 0 means "take the clock" to cma
    strategy = cma.CMAEvolutionStrategy(problem.start.flatten().tolist(), settings.sigma, {"seed": seed + 1, "verbose": -9})
    done = 0

    def fitness(candidate: torch.Tensor, number: int) -> float:
        losses = problem.losses(candidate, batches)
        value = problem.value(candidate, losses)
        trajectory.step(number, losses, problem.mean_coefficients(candidate).tolist(), value=value, texts=problem.live.embedded)
        if judge is None:
            if value < best[0]:
                trajectory.latest(number, candidate, losses)
        elif settings.fitness == "measure":
            problem.live.place(problem.table(candidate))
            judgement = judge.measure(problem.live)
            trajectory.judge(number, candidate, judgement)
            value = judgement.value
        best[0] = min(best[0], value)
        return value

    best = [float("inf")]
    with progress("positioning", settings.evaluations, unit="candidate") as bar:
        while done < settings.evaluations and not strategy.stop():
            candidates = [torch.from_numpy(np.array(x)).reshape(problem.start.shape) for x in strategy.ask()]
            values = []
            for candidate in candidates:
                done += 1
                values.append(fitness(candidate, done))
                bar.advance(1, value=min(values))
            strategy.tell([candidate.flatten().numpy() for candidate in candidates], values)
            if judge and settings.fitness == "loss":
                champion = candidates[int(np.argmin(values))]
                problem.live.place(problem.table(champion))
                trajectory.judge(done, champion, judge.measure(problem.live))
