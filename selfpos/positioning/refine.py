"""Refinement after the search: a few steps on the validation measure itself, because a probe loss is not the score.

Only the model's own row of parameters moves, a handful of numbers; what finer rows have found stays. The measure of a validation part of a
hundred records is noisy, and whatever is chosen by it flatters it. So the refined point is taken only where it is clearly better than the
search's on the same records, by the lower end of a paired 90 % interval; a large validation part makes that likelier.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selfpos.console import log
from selfpos.positioning.cma_es import evolve
from selfpos.positioning.judge import Judge, Judgement
from selfpos.positioning.problem import Problem
from selfpos.positioning.replay import Replay
from selfpos.positioning.trajectory import Point, Trajectory
from selfpos.positioning.uncertainty import gain_interval

STEP = 0.2  # of the first moves, in parameters, and the first standard deviation of cma-es
SMALLEST = 0.02  # moves below change no measure


def refine(problem: Problem, judge: Judge, trajectory: Trajectory, *, seed: int) -> None:
    """From the best point so far, at most `refine_evaluations` more, by `settings.refine`: `coordinate` or `cma-es`; the best one is kept if it
    is clearly better, or else the search's.

    Raises SelfposError, for cma-es, when the package `cma` is not installed or there is only one parameter.
    """
    settings, best = problem.settings, trajectory.best
    assert best is not None
    kept = trajectory.kept.get("refined_from")
    if kept is None:
        kept = {"at": best.parameters, "step": best.step, "value": best.value, "steps": trajectory.steps}
    trajectory.keep(refined_from=kept)
    start, value, searched = kept["at"], kept["value"], kept["steps"]

    def fitness(row: Tensor, number: int) -> float:
        candidate = start.clone()
        candidate[0] = row
        problem.live.place(problem.table(candidate))
        judgement = judge.measure(problem.live)
        trajectory.judge(searched + number, candidate, judgement, texts=problem.live.embedded)
        return judgement.value

    measured = Replay("refine", fitness, trajectory, problem.live)
    with measured.shown("refining", settings.refine_evaluations):
        if settings.refine == "cma-es":
            evolve(measured, start[0], STEP, settings.refine_evaluations, seed, problem.admissible)
        else:
            _coordinates(measured, start[0], value, problem)
    _unless_noise(problem, judge, trajectory, kept["step"], start, seed)


def _unless_noise(
    problem: Problem, judge: Judge, trajectory: Trajectory, step: int, start: Tensor, seed: int
) -> None:
    """Go back to the search's point `start`, of its `step`, where the best point's gain over it may be chance."""
    assert trajectory.best is not None
    if trajectory.best.step == step:
        return

    def at(
        parameters: Tensor,
    ) -> Judgement:  # anew: a search that was killed has not kept what was right of each record
        problem.live.place(problem.table(parameters))
        return judge.measure(problem.live)

    found, first = at(trajectory.best.parameters), at(start)
    low, high = gain_interval(judge, found, first, seed)
    gain = f"{100 * low:+.1f} to {100 * high:+.1f} points on the validation part"
    if low > 0:
        log.info("refined: %s", gain)
        return
    log.info("refinement found nothing clearly better (%s); the search's point stays", gain)
    trajectory.best = Point(step, start, first.losses, first.value, first)


def _coordinates(fitness: Replay, point: Tensor, value: float, problem: Problem) -> None:
    """Compass search: up and down one parameter after the other, taking what is better; half the step when none is (Kolda, Lewis and
    Torczon, SIAM Review 45, 2003, section 1)."""
    step = STEP
    while step >= SMALLEST:
        moved = False
        for place in range(len(point)):
            for sign in (1, -1):
                if fitness.asked >= problem.settings.refine_evaluations:
                    return
                change = torch.zeros_like(point)
                change[place] = sign * step
                trial = problem.admissible(point + change)
                if (found := fitness(trial)) < value:
                    point, value, moved = trial, found, True
                    break
        step = step if moved else step / 2
