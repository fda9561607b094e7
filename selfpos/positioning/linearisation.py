"""Embeddings as linear functions of the coefficients, and what is minimised and judged on them.

Differences, not forward-mode derivatives: torch.func.jvp takes 2.9 forward passes a direction on
all-MiniLM-L6-v2, a difference one, and they differ by .4 %, far less than the linear model from the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import selfpos.processes as processes
from selfpos.errors import SelfposError
from selfpos.positioning.folds import FOLDS, Folds
from selfpos.positioning.problem import Problem

LARGEST_SCALE = 2.0
PULLS = (math.inf, 1.0, 0.3, 0.1, 0.03)  # ρ, from one scale for all to nearly free coefficients
STEP = 0.05  # of the finite differences, in coefficients: far above float32 noise, far below the radius
MEMORY = 4 << 30  # bytes that the derivatives may take
FORETOLD = 0.2  # share of a step's change of embeddings that may be missed by derivatives that are kept
STANDARD_ERRORS = 1.0  # by which a stronger pull may look worse than the best and still be taken


@dataclass(frozen=True)
class Linearisation:
    """Embeddings (P, d) of the folds' texts at `parameters`, and their derivatives (C·N, P, d), on the CPU.

    A derivative is along one cell and one vector. A cell is a set of tensors that share all their parameters,
    a row of `cells` (C, R); a coarser row acts as the sum of its cells.
    """

    problem: Problem
    folds: Folds
    units: Mapping[str, float]
    parameters: Tensor
    embeddings: Tensor
    cells: Tensor
    derivatives: Tensor

    def predicted(self, parameters: Tensor) -> Tensor:
        """Embeddings (P, d) at `parameters`, as the linearisation has them."""
        change = (self.cells @ (parameters - self.parameters)).reshape(-1)
        return self.embeddings + torch.tensordot(change.to(self.derivatives), self.derivatives, 1)

    @torch.no_grad()
    def moved(self, parameters: Tensor, embeddings: Tensor) -> Linearisation | None:
        """The linearisation at `parameters`, whose true `embeddings` are given, or None where a step to there
        was not foretold well or there was none.

        Derivatives change as little as it takes to explain the step. Were the second derivatives constant, a
        share r that was missed would mean that the derivatives changed by a share 2r.
        """
        change = (self.cells @ (parameters - self.parameters)).reshape(-1).to(self.derivatives)
        missed = embeddings - self.predicted(parameters)
        share = processes.of_first(float(missed.norm() / (embeddings - self.embeddings).norm()))
        if not share < FORETOLD:
            return None
        derivatives = torch.addcmul(self.derivatives, (change / change.square().sum())[:, None, None], missed)
        return replace(self, parameters=parameters, embeddings=embeddings, derivatives=derivatives)

    def minimise(
        self, pull: float, radius: float, *, fold: int | None = None, start: Tensor | None = None,
        ceilings: Mapping[str, float] | None = None,
    ) -> tuple[Tensor, float]:  # fmt: skip
        """Parameters within `radius` that minimise the objective, and the objective there.

        Args:
            pull: ρ; with infinity one scale for all is found, however far it is.
            radius: of the trust region, the largest change of a parameter.
            fold: records that take no part.
            start: parameters to begin at.
            ceilings: task → smooth measure that it should not exceed.
        """
        from scipy.optimize import minimize

        shape, one_scale = self.parameters.shape, math.isinf(pull)
        first = self.parameters if start is None else start

        @torch.enable_grad()
        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            free = torch.from_numpy(flat.copy()).requires_grad_(True)
            parameters = uniform(free, shape) if one_scale else self.parameters + free.reshape(shape)
            values = self.folds.values(self.predicted(parameters), fold)
            value = self.problem.objective(values, self.units, parameters, pull, ceilings)
            (gradient,) = torch.autograd.grad(value, free)
            return value.item(), gradient.double().numpy()

        if one_scale:
            begin, bounds = first[0].mean().reshape(1).numpy(), [(0.0, LARGEST_SCALE)]
        else:
            begin = (first - self.parameters).numpy().reshape(-1)
            bounds = [(-radius, radius)] * len(begin)
        minimum = minimize(
            objective,
            begin,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 50, "ftol": 1e-6},
        )
        # every process solves for itself, and a last digit must not part their ways
        solution, value = processes.of_first((torch.from_numpy(minimum.x), float(minimum.fun)))
        if one_scale:
            return uniform(solution, shape), value
        return self.parameters + solution.reshape(shape), value

    def cross_validate(self, radius: float, pulls: Sequence[float] = PULLS) -> CrossValidation:
        """Solve without each fold for every pull, and judge each solution by the fold that it never saw."""
        held_out: dict[float, dict[str, Tensor]] = {}
        points: dict[float, list[Tensor]] = {}
        starts: list[Tensor | None] = [None] * FOLDS
        for pull in pulls:
            values = {
                name: torch.full((task.measure.count,), torch.nan, dtype=torch.float64)
                for name, task in self.folds.tasks.items()
            }
            points[pull] = []
            for fold in range(FOLDS):
                parameters, _ = self.minimise(pull, radius, fold=fold, start=starts[fold])
                starts[fold] = parameters
                points[pull].append(parameters)
                with torch.no_grad():
                    judged = self.folds.held_out(self.predicted(parameters), fold)
                for name, (rows, by_record) in judged.items():
                    values[name][rows] = by_record.double() / self.units[name]
            held_out[pull] = values
        return CrossValidation(held_out, points, self.problem.task_weights(self.folds.tasks))


@dataclass(frozen=True)
class CrossValidation:
    """For each pull the held-out value of every record by task, over the base's, and the folds' points."""

    held_out: dict[float, dict[str, Tensor]]
    points: dict[float, list[Tensor]]
    weights: Mapping[str, float]

    def value(self, pull: float) -> float:
        """The objective on held-out records."""
        return sum(
            self.weights[name] * float(values.nanmean()) for name, values in self.held_out[pull].items()
        )

    def excess(self, pull: float, other: float) -> tuple[float, float]:
        """How much worse `pull` is than `other`, and the standard error of it over records."""
        mean = variance = 0.0
        for name, values in self.held_out[pull].items():
            difference = (values - self.held_out[other][name]).numpy()
            difference = difference[np.isfinite(difference)]
            mean += self.weights[name] * float(difference.mean())
            variance += self.weights[name] ** 2 * float(difference.var()) / len(difference)
        return mean, math.sqrt(variance)

    @property
    def pull(self) -> float:
        """The strongest pull that is no worse than the best, within STANDARD_ERRORS of the difference."""
        best = min(self.held_out, key=self.value)
        for pull in self.held_out:  # from the strongest
            mean, error = self.excess(pull, best)
            if mean <= STANDARD_ERRORS * error:
                return pull
        return best


def uniform(scale: Tensor, shape: torch.Size) -> Tensor:
    """Parameters (R, P) of one coefficient for all vectors, `scale` (1,), and no offsets; differentiable."""
    first = torch.zeros(shape[0], 1, dtype=torch.float64)
    first[0] = 1.0
    return (first * scale).expand(shape)


def check_derivatives(directions: int, texts: int, width: int) -> None:
    """Raise SelfposError where float32 derivatives (directions, texts, width) would take too much memory."""
    needed = 4 * directions * texts * width
    if needed > MEMORY:
        raise SelfposError(
            f"the linearised search would keep {needed / 2**30:.0f} GiB of derivatives ({directions} "
            f"directions × {texts} texts); use a coarser granularity or a smaller probe, or 'search: sgd'"
        )


@torch.no_grad()
def linearise(
    problem: Problem, folds: Folds, units: Mapping[str, float], parameters: Tensor, embeddings: Tensor
) -> Linearisation:
    """Finite differences at `parameters`, where the texts have `embeddings`, in C·N passes."""
    cells, member = torch.unique(problem.lookup, dim=0, return_inverse=True)
    count = len(cells) * len(problem.names)
    check_derivatives(count, *embeddings.shape)
    centre = problem.table(parameters)
    derivatives = torch.empty(count, *embeddings.shape)
    for row in range(count):
        cell, vector = divmod(row, len(problem.names))
        moved = centre.clone()
        moved[member == cell, vector] += STEP
        problem.live.set_coefficients(moved)
        derivatives[row] = (problem.live.embed(folds.table.texts).float().cpu() - embeddings) / STEP
    return Linearisation(problem, folds, units, parameters, embeddings, cells, derivatives)
