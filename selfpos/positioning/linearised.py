"""The linearised search: forward passes only, a few rounds of a trust-region method.

The space has few dimensions, and embeddings are nearly linear in the coefficients close by: e(c + δ) ≈ e(c) + Σ_j δ_j·∂e/∂c_j. One round
takes the embeddings of the probe at c and, by finite differences, their derivative along every direction (K + 1 forward passes over the
probe, no backward pass, no activations kept); minimises the loss of the *linearised* embeddings over |δ| ≤ r, all records at once, which
costs milliseconds; and embeds the probe at the minimum to see what is true of it. The ratio of true to predicted decrease sets the radius
(Conn, Gould and Toint, Trust-Region Methods, 2000, algorithm 6.1.1), the non-smooth outer loss being treated exactly, as in the prox-linear
method (Drusvyatskiy and Paquette, Mathematical Programming 178, 2019).

Why differences and not forward-mode derivatives: torch.func.jvp needs the eager attention on the CPU (2.13 has no forward derivative of its
flash attention there) and takes 2.9 forward passes a direction on all-MiniLM-L6-v2 with 32 texts, a difference takes one; the two differed
by .4 %, far less than the linear model does from the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.positioning.judge import Judge, Judgement, TextTable
from selfpos.positioning.objective import Batch, Draws, losses_of, texts_of
from selfpos.positioning.problem import Problem
from selfpos.positioning.trajectory import Trajectory

STEP = 0.05  # of the finite differences, in coefficients: far above float32 noise, far below the radius
LARGEST_BATCH = 256  # records of a task that serve as each other's negatives
MEMORY = 4 << 30  # bytes that the derivatives may take
ACCEPT, SHRINK, GROW = 0.1, 0.25, 0.75  # shares of the predicted decrease that must come true
ATTEMPTS = 4  # smaller and smaller steps from one linearisation before giving up
NEGLIGIBLE = 5e-4  # a predicted decrease below this share of the value ends the search


@dataclass(frozen=True)
class Linearisation:
    """The probe around `parameters`: embeddings (P, d) of the texts in `table`, and derivatives (C·N, P, d) along each cell and vector.

    A cell is a set of tensors that share all their parameters, a row of `cells` (C, R); what coarser rows do is the sum of their cells.
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
        """Parameters within `radius` of the point that minimise the linearised objective on `batches`, and the objective there.

        The descent begins at the point, or at the parameters `start`.
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
        found = minimize(
            objective,
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-radius, radius)] * len(first),
            options={"maxiter": 200, "ftol": 1e-7},
        )
        return self.parameters + torch.from_numpy(found.x).reshape(shape), float(found.fun)


@torch.no_grad()
def linearise(
    problem: Problem, parameters: Tensor, batches: list[Batch], table: TextTable, embeddings: Tensor
) -> Linearisation:
    """Finite differences of the embeddings of `table.texts`, those of `batches`, at `parameters`, where they are `embeddings`; C·N passes.

    Raises SelfposError when the derivatives would not fit into memory.
    """
    cells, member = torch.unique(problem.hierarchy.lookup, dim=0, return_inverse=True)
    count = len(cells) * len(problem.names)
    needed = count * embeddings.numel() * embeddings.element_size()
    if needed > MEMORY:
        raise SelfposError(
            f"the linearised search would keep {needed / 2**30:.0f} GiB of derivatives ({count} directions × {len(table.texts)} texts); "
            "use a coarser granularity or a smaller probe, or 'search: sgd'"
        )
    centre = problem.table(parameters)
    derivatives = torch.empty(count, *embeddings.shape, dtype=embeddings.dtype, device=embeddings.device)
    for row in range(count):
        cell, vector = divmod(row, len(problem.names))
        moved = centre.clone()
        moved[member == cell, vector] += STEP
        problem.live.place(moved)
        derivatives[row] = (problem.live.embed(table.texts) - embeddings) / STEP
    return Linearisation(problem, parameters, table, embeddings, cells, derivatives, batches)


class _Probe:
    """The search part, embedded once a point, with the judge's texts behind it."""

    def __init__(self, problem: Problem, judge: Judge | None, seed: int) -> None:
        self.problem, self.judge = problem, judge
        self.batches = Draws(problem.tasks, LARGEST_BATCH, seed, single=True).covering()
        searched = TextTable(texts_of(self.batches))
        self.count = len(searched.texts)
        self.table = TextTable([*searched.texts, *(judge.table.texts if judge else [])])

    @torch.no_grad()
    def embed(self, point: Tensor) -> Tensor:
        """Embeddings of the search part at `point`, whose weights stay placed."""
        self.problem.live.place(self.problem.table(point))
        return self.problem.live.embed(self.table.texts[: self.count])

    @torch.no_grad()
    def judgement(self, embeddings: Tensor) -> Judgement:
        """What the judge says of the point whose weights are placed and whose search part has `embeddings`."""
        assert self.judge is not None
        rest = self.table.texts[self.count :]
        everything = torch.cat([embeddings, self.problem.live.embed(rest)]) if rest else embeddings
        return self.judge.of(everything, self.table)

    @torch.no_grad()
    def value(
        self, point: Tensor, embeddings: Tensor, batches: Sequence[Batch]
    ) -> tuple[float, dict[str, float]]:
        """The objective on `batches` and the losses it is made of."""
        found = losses_of(self.problem.tasks, batches, embeddings[self.table.rows(texts_of(batches))])
        losses = {task: loss.item() for task, loss in found.items()}
        return self.problem.value(point, losses), losses


def search(
    problem: Problem, judge: Judge | None, trajectory: Trajectory, *, seed: int
) -> Linearisation | None:
    """At most `rounds` rounds from the space's start, reporting to `trajectory`; returns the last linearisation.

    The first round looks at `early_share` of the records, the others at all. The point kept is the one that the judge likes best, or the
    last one when nothing is held out; `patience` rounds without a better one end the search.
    """
    settings = problem.settings
    probe = _Probe(problem, judge, seed)
    point, radius, waited, first = problem.start.clone(), settings.radius, 0, 1
    kept = trajectory.kept.get("linearised")
    around: Linearisation | None = None
    with progress("positioning", settings.rounds, unit="round") as bar:
        problem.measure_references(probe.batches)
        if kept:
            point, radius, waited, first = kept["point"], kept["radius"], kept["waited"], kept["round"]
            bar.advance(first - 1)
        embeddings = probe.embed(point)
        if kept:
            problem.live.embedded = kept["texts"]
        elif judge:
            trajectory.judge(0, point, probe.judgement(embeddings), texts=problem.live.embedded)
        else:
            trajectory.latest(0, point, probe.value(point, embeddings, probe.batches)[1])
        for number in range(first, settings.rounds + 1):
            # kept before the round, not after it: the last round's linearisation is wanted when the search is over
            state = {
                "point": point,
                "radius": radius,
                "waited": waited,
                "round": number,
                "texts": problem.live.embedded,
            }
            trajectory.keep(linearised=state)
            early = number == 1 and settings.rounds > 1 and settings.early_share < 1
            generator = torch.Generator().manual_seed(seed)
            batches = (
                [batch.part(settings.early_share, generator) for batch in probe.batches]
                if early
                else probe.batches
            )
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
                trajectory.step(
                    number, losses, problem.mean_coefficients(trial).tolist(),
                    before=before, predicted=predicted, after=after, ratio=ratio, radius=radius, texts=problem.live.embedded,
                )  # fmt: skip
                reached = float((trial - point).abs().max()) > 0.99 * radius
                radius *= (
                    0.25
                    if ratio < ACCEPT
                    else 0.5
                    if ratio < SHRINK
                    else 2
                    if ratio > GROW and reached
                    else 1
                )
                if ratio >= ACCEPT:
                    break
            else:
                return around
            point, embeddings = trial, trial_embeddings
            bar.advance(1, value=after, radius=radius)
            if judge is None:
                trajectory.latest(number, point, losses)
                continue
            waited = (
                0
                if trajectory.judge(number, point, probe.judgement(embeddings), texts=problem.live.embedded)
                else waited + 1
            )
            if settings.patience and waited >= settings.patience:
                break
    return around
