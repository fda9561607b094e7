"""The linearised search: forward passes only, a few rounds of a trust-region method.

Embeddings are nearly linear in the few coefficients close by: e(c + δ) ≈ e(c) + Σ_j δ_j·∂e/∂c_j. A round
embeds the probe at c and takes the derivatives by finite differences: K + 1 forward passes over the probe, no
backward pass. It minimises the loss of the *linearised* embeddings over |δ| ≤ r, all records at once, which
costs milliseconds, and embeds the probe at the minimum. The ratio of true to predicted decrease sets the
radius (Conn, Gould and Toint, Trust-Region Methods, 2000, algorithm 6.1.1). The non-smooth outer loss is
treated exactly, as in the prox-linear method (Drusvyatskiy and Paquette, Mathematical Programming 178, 2019).

Differences, not forward-mode derivatives: torch.func.jvp takes 2.9 forward passes a direction on
all-MiniLM-L6-v2, a difference one, and they differ by .4 %, far less than the linear model from the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.positioning.draws import Draws
from selfpos.positioning.objective import Batch, TextTable, losses_of, texts_of
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import INTERVAL, Measurement, Selection
from selfpos.positioning.trajectory import Trajectory

STEP = 0.05  # of the finite differences, in coefficients: far above float32 noise, far below the radius
LARGEST_BATCH = 256  # records of a task that are each other's negatives
MEMORY = 4 << 30  # bytes that the derivatives may take
RADIUS = 0.5  # of the first trust region, in coefficients: half of a vector
EARLY_SHARE = 0.5  # of the records in the first round, which needs a direction more than precision
ACCEPT, SHRINK, GROW = 0.1, 0.25, 0.75  # shares of the predicted decrease that must come true
ATTEMPTS = 4  # smaller and smaller steps from one linearisation before giving up
NEGLIGIBLE = 5e-4  # a predicted decrease below this share of the value ends the search
HALVES = 20  # random halves behind the intervals of coefficients: enough for 5 % quantiles
REACH = 1.0  # trust region in which the halves are solved


@dataclass(frozen=True)
class Linearisation:
    """Embeddings (P, d) of the texts in `table` at `parameters`, and their derivatives (C·N, P, d).

    A derivative is along one cell and one vector. A cell is a set of tensors that share all their parameters,
    a row of `cells` (C, R); a coarser row acts as the sum of its cells.
    """

    problem: Problem
    parameters: Tensor
    table: TextTable
    embeddings: Tensor
    cells: Tensor
    derivatives: Tensor
    batches: list[Batch]

    def minimise(
        self, batches: Sequence[Batch], radius: float, start: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """Parameters within `radius` that minimise the linearised objective on `batches`, and their
        objective.

        The descent begins at the point itself, or at the parameters `start`.
        """
        from scipy.optimize import minimize

        rows = self.table.rows(texts_of(batches))
        at, along = self.embeddings[rows].float(), self.derivatives[:, rows].float()
        problem, shape = self.problem, self.parameters.shape

        @torch.enable_grad()
        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            change = torch.from_numpy(flat.copy()).reshape(shape).requires_grad_(True)
            predicted = at + torch.tensordot((self.cells @ change).reshape(-1).to(along), along, 1)
            value = problem.balance(losses_of(problem.tasks, batches, predicted)).double().cpu()
            value = value + problem.penalty(self.parameters + change)
            (gradient,) = torch.autograd.grad(value, change)
            return value.item(), gradient.numpy().reshape(-1)

        first = np.zeros(shape.numel()) if start is None else (start - self.parameters).numpy().reshape(-1)
        minimum = minimize(
            objective,
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-radius, radius)] * len(first),
            options={"maxiter": 200, "ftol": 1e-7},
        )
        return self.parameters + torch.from_numpy(minimum.x).reshape(shape), float(minimum.fun)

    def coefficient_spread(self, seed: int) -> list[tuple[float, float]]:
        """How far each coefficient may lie below and above the solution: 90 % intervals from random halves.

        The linearised objective is solved on each half. Halves without repeats, because a record drawn twice
        would be its own false negative. The solution of a half deviates from that of the whole as the whole's
        deviates from the truth (subsampling at half the size: Politis and Romano, Annals of Statistics 22,
        1994), so the quantiles of the differences make the interval.
        """
        solution, _ = self.minimise(self.batches, REACH)
        whole = self.problem.mean_coefficients(solution)
        differences = []
        for number in range(HALVES):
            generator = torch.Generator().manual_seed(seed + number)
            half = [batch.part(0.5, generator) for batch in self.batches]
            parameters, _ = self.minimise(half, REACH, solution)
            differences.append((self.problem.mean_coefficients(parameters) - whole).numpy())
        low, high = np.quantile(np.array(differences), INTERVAL, axis=0)
        return [(float(0.0 - above), float(0.0 - below)) for below, above in zip(low, high, strict=True)]


@torch.no_grad()
def linearise(
    problem: Problem, parameters: Tensor, batches: list[Batch], table: TextTable, embeddings: Tensor
) -> Linearisation:
    """Finite differences at `parameters`, where the texts of `table` have `embeddings`, in C·N passes."""
    cells, member = torch.unique(problem.lookup, dim=0, return_inverse=True)
    count = len(cells) * len(problem.names)
    needed = count * embeddings.numel() * embeddings.element_size()
    if needed > MEMORY:
        raise SelfposError(
            f"the linearised search would keep {needed / 2**30:.0f} GiB of derivatives ({count} directions × "
            f"{len(table.texts)} texts); use a coarser granularity or a smaller probe, or 'search: sgd'"
        )
    centre = problem.table(parameters)
    derivatives = torch.empty(count, *embeddings.shape, dtype=embeddings.dtype, device=embeddings.device)
    for row in range(count):
        cell, vector = divmod(row, len(problem.names))
        moved = centre.clone()
        moved[member == cell, vector] += STEP
        problem.live.set_coefficients(moved)
        derivatives[row] = (problem.live.embed(table.texts) - embeddings) / STEP
    return Linearisation(problem, parameters, table, embeddings, cells, derivatives, batches)


class _Probe:
    """The search part, embedded once a point, with the texts of the validation part behind it."""

    def __init__(self, problem: Problem, selection: Selection | None, seed: int) -> None:
        self.problem, self.selection = problem, selection
        self.batches = Draws(problem.tasks, LARGEST_BATCH, seed, single=True).covering()
        searched = TextTable(texts_of(self.batches))
        self.count = len(searched.texts)
        self.table = TextTable([*searched.texts, *(selection.table.texts if selection else [])])

    @torch.no_grad()
    def embed(self, point: Tensor) -> Tensor:
        """Embeddings of the search part at `point`, whose weights stay set."""
        self.problem.apply(point)
        return self.problem.live.embed(self.table.texts[: self.count])

    @torch.no_grad()
    def measure(self, embeddings: Tensor) -> Measurement:
        """Measure the point whose weights are set and whose search part has `embeddings`."""
        assert self.selection is not None
        rest = self.table.texts[self.count :]
        everything = torch.cat([embeddings, self.problem.live.embed(rest)]) if rest else embeddings
        return self.selection.of(everything, self.table)

    @torch.no_grad()
    def value(
        self, point: Tensor, embeddings: Tensor, batches: Sequence[Batch]
    ) -> tuple[float, dict[str, float]]:
        """The objective on `batches`, and their losses."""
        losses = losses_of(self.problem.tasks, batches, embeddings[self.table.rows(texts_of(batches))])
        numbers = {task: loss.item() for task, loss in losses.items()}
        return self.problem.value(point, numbers), numbers


def _next_radius(radius: float, ratio: float, reached: bool) -> float:
    """The radius after a step: `ratio` of true to predicted decrease, `reached` if it went to the edge."""
    if ratio < ACCEPT:
        return radius * 0.25
    if ratio < SHRINK:
        return radius * 0.5
    if ratio > GROW and reached:
        return radius * 2
    return radius


def search(
    problem: Problem, selection: Selection | None, trajectory: Trajectory, *, seed: int
) -> Linearisation | None:
    """At most `rounds` rounds from the space's start; returns the last linearisation.

    The first round uses half of the records, the others all. The point kept is the best on the validation
    part, or the last one without it.
    """
    settings = problem.settings
    probe = _Probe(problem, selection, seed)
    point, radius, first = problem.start.clone(), RADIUS, 1
    around: Linearisation | None = None
    with progress("positioning", settings.rounds, unit="round") as bar:
        problem.measure_base(probe.batches)
        if kept := trajectory.kept.get("linearised"):
            point, radius, first = kept["point"], kept["radius"], kept["round"]
            bar.advance(first - 1)
        embeddings = probe.embed(point)
        if kept:
            problem.live.embedded = kept["texts"]
        elif selection:
            trajectory.measured(0, point, probe.measure(embeddings), texts=problem.live.embedded)
        else:
            trajectory.latest(0, point, probe.value(point, embeddings, probe.batches)[1])
        for number in range(first, settings.rounds + 1):
            # kept before the round, not after it: the last linearisation is needed when the search is over
            texts = problem.live.embedded
            trajectory.keep(linearised={"point": point, "radius": radius, "round": number, "texts": texts})
            batches = probe.batches
            if number == 1 and settings.rounds > 1:
                generator = torch.Generator().manual_seed(seed)
                batches = [batch.part(EARLY_SHARE, generator) for batch in probe.batches]
            table = TextTable(texts_of(batches))
            around = linearise(problem, point, batches, table, embeddings[probe.table.rows(table.texts)])
            before, _ = probe.value(point, embeddings, batches)
            for _ in range(ATTEMPTS):
                trial, predicted = around.minimise(batches, radius)
                if before - predicted <= NEGLIGIBLE * abs(before):
                    return around
                trial_embeddings = probe.embed(trial)
                after, losses = probe.value(trial, trial_embeddings, batches)
                ratio = (before - after) / (before - predicted)
                coefficients = problem.mean_coefficients(trial).tolist()
                trajectory.step(
                    number, losses, coefficients, before=before, predicted=predicted, after=after,
                    ratio=ratio, radius=radius, texts=problem.live.embedded,
                )  # fmt: skip
                reached = float((trial - point).abs().max()) > 0.99 * radius
                radius = _next_radius(radius, ratio, reached)
                if ratio >= ACCEPT:
                    break
            else:
                return around
            point, embeddings = trial, trial_embeddings
            bar.advance(1, value=after, radius=radius)
            if selection is None:
                trajectory.latest(number, point, losses)
            else:
                trajectory.measured(number, point, probe.measure(embeddings), texts=problem.live.embedded)
    return around
