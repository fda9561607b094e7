"""The default search: forward passes only, all records at once, and a pull to one scale for all.

1. The probe is embedded at a few scales, the same for all vectors. The best is the tuned scale.
2. Embeddings are nearly linear in the few coefficients close by: e(c + δ) ≈ e(c) + Σ_j δ_j·∂e/∂c_j. A round
   embeds the probe at c and takes the derivatives by finite differences: K + 1 passes, no backward pass.
   After a step that they foretold well they are kept, corrected by what they missed (Broyden, Mathematics of
   Computation 19, 1965).
3. The mean of the tasks' smooth measures plus ρ·mean (c_i − mean c)² is minimised over the *linearised*
   embeddings within a trust region (Conn, Gould and Toint, Trust-Region Methods, 2000, algorithm 6.1.1). The
   non-smooth outer part is treated exactly, as in the prox-linear method (Drusvyatskiy and Paquette,
   Mathematical Programming 178, 2019).
4. The pull ρ is chosen by cross-validation over folds of the records, on the same linearisation: no record is
   held out for good, and none judges coefficients that it chose. ρ = ∞ is one scale for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import selfpos.processes as processes
from selfpos.console import log, progress
from selfpos.positioning.folds import Folds
from selfpos.positioning.linearisation import LARGEST_SCALE, PULLS, Linearisation, linearise, uniform
from selfpos.positioning.problem import Problem
from selfpos.positioning.trajectory import Trajectory

SCALES = (0.5, 1.0)  # tried first; the linearisation finds the scale between and below them
BETWEEN = 0.25  # of a scale that was embedded: there a parabola through it and the base misses a thirtieth
RADIUS = 1.0  # of the first trust region, in coefficients: a vector
ACCEPT, SHRINK, GROW = 0.1, 0.25, 0.75  # shares of the predicted decrease that must come true
ATTEMPTS = 4  # smaller and smaller steps from one linearisation before giving up
NEGLIGIBLE = 5e-4  # a predicted decrease below this share of the value ends the search
FEWEST = 20  # records of a task, four a fold; with fewer the search keeps one scale for all


def _falls_on(values: Mapping[float, float]) -> bool:
    """Whether the parabola through the last three of `values`, a step of .5 apart, is lowest nearer to a next
    one than to the last.
    """
    first, second, third = (values[scale] for scale in sorted(values)[-3:])
    bend = first - 2 * second + third
    return bend <= 0 or (first - third) / (2 * bend) > 1.5


def _next_radius(radius: float, ratio: float, reached: bool) -> float:
    """The radius after a step: `ratio` of true to predicted decrease, `reached` if it went to the edge."""
    if ratio < ACCEPT:
        return radius * 0.25
    if ratio < SHRINK:
        return radius * 0.5
    if ratio > GROW and reached:
        return radius * 2
    return radius


class LinearisedSearch:
    """One search: its probe in folds, the points that have been embedded, and the last linearisation.

    After `run`, `by_fold` has for each fold the point that was found without it.
    """

    def __init__(self, problem: Problem, trajectory: Trajectory, seed: int) -> None:
        self.problem, self.trajectory = problem, trajectory
        self.folds = Folds(problem.tasks, problem.settings.temperature, seed)
        self.known: dict[str, Tensor] = {}  # name of a point → embeddings of all texts
        self.units: dict[str, float] = {}
        self.scale = 0.0  # the tuned one
        self.pull = math.inf
        self.around: Linearisation | None = None
        self.by_fold: list[Tensor] = []

    @torch.no_grad()
    def embed(self, parameters: Tensor) -> Tensor:
        """Embeddings (P, d) of all texts at `parameters`, on the CPU."""
        self.problem.apply(parameters)
        return self.problem.live.embed(self.folds.table.texts).float().cpu()

    def uniform(self, scale: float) -> Tensor:
        """The parameters of one coefficient for all vectors."""
        return uniform(torch.tensor([scale], dtype=torch.float64), self.problem.start.shape).clone()

    @torch.no_grad()
    def losses(self, embeddings: Tensor) -> dict[str, float]:
        """The smooth measures of all tasks."""
        return {name: value.item() for name, value in self.folds.values(embeddings).items()}

    @torch.no_grad()
    def value(self, parameters: Tensor, embeddings: Tensor, pull: float) -> float:
        """The objective at `parameters`, whose embeddings are given."""
        values = self.folds.values(embeddings)
        return self.problem.objective(values, self.units, parameters, pull).item()

    def run(self) -> Tensor:
        """Search; returns the parameters kept."""
        settings, trajectory = self.problem.settings, self.trajectory
        pulls = self._pulls()
        with progress("positioning", settings.rounds + 1, unit="round") as bar:
            if kept := trajectory.kept.get("linearised"):
                self.known, self.units, self.scale = kept["known"], kept["units"], kept["scale"]
                point, radius, first = kept["point"], kept["radius"], kept["round"]
                self.problem.live.embedded = kept["texts"]
                bar.advance(first)
            else:
                point, radius, first = self._best_scale(), RADIUS, 1
                bar.advance(1)
            for number in range(first, settings.rounds + 1):
                at_point = self.known["point"]
                moved = self.around and self.around.moved(point, at_point)
                if moved is None:
                    # a killed search goes on where derivatives are taken: they are too large to be kept
                    trajectory.keep(
                        linearised={
                            "known": dict(self.known), "units": self.units, "scale": self.scale,
                            "point": point, "radius": radius, "round": number,
                            "texts": self.problem.live.embedded,
                        }
                    )  # fmt: skip
                self.around = moved or linearise(self.problem, self.folds, self.units, point, at_point)
                point, radius, ended = self._round(number, point, radius, pulls)
                ended = ended and moved is None
                left = settings.rounds - number
                bar.advance(1 + left * ended, scale=self.scale, pull=self.pull)
                if ended:
                    break
        return point

    def _best_scale(self) -> Tensor:
        """The point of the best of SCALES, and of larger ones as long as they are better."""
        self.known["base"] = self.problem.live.embed_by(None, self.folds.table.texts)
        losses = self.losses(self.known["base"])
        in_units = self.problem.settings.normalise == "base"
        self.units = {
            name: (abs(loss) or 1.0) if in_units and not self.folds.tasks[name].measure.in_units else 1.0
            for name, loss in losses.items()
        }
        self.trajectory.scaled(0.0, losses)
        scales, values = list(SCALES), {0.0: self.value(self.uniform(0.0), self.known["base"], 0.0)}
        while scales:
            scale = scales.pop(0)
            embeddings = self.embed(self.uniform(scale))
            values[scale] = self.value(self.uniform(scale), embeddings, 0.0)
            self.trajectory.scaled(scale, self.losses(embeddings))
            best = min((known for known in values if known), key=values.__getitem__)
            if scale == best:
                self.known["point"] = embeddings
            if not scales and scale == best and scale < LARGEST_SCALE and _falls_on(values):
                scales.append(scale + 0.5)
        self._keep(0, self.uniform(best), self.known["point"])
        return self.uniform(best)

    def _keep(self, number: int, point: Tensor, embeddings: Tensor, **numbers: float) -> None:
        """Take `point` as the best so far, and write the step to it."""
        losses = self.losses(embeddings)
        coefficients = self.problem.mean_coefficients(point).tolist()
        self.trajectory.step(number, losses, coefficients, texts=self.problem.live.embedded, **numbers)
        self.trajectory.latest(number, point, losses)
        self.known["point"] = embeddings

    def _round(
        self, number: int, point: Tensor, radius: float, pulls: Sequence[float]
    ) -> tuple[Tensor, float, bool]:
        """One round from `point`: the next point and radius, and whether the search has come to its end."""
        around = self.around
        assert around is not None
        reach = max(radius, RADIUS)  # folds must be free to leave the point that all records chose
        validation = around.cross_validate(reach, pulls)
        self.pull = processes.of_first(validation.pull)
        if "scale" not in self.known:
            self._tune_scale(around, point)
        whole, _ = around.minimise(self.pull, reach)
        if math.isinf(self.pull):
            end = self.uniform(self.scale)
            self.known["scale"] = self.embed(end)
            self._keep(number, end, self.known["scale"])
            ended = True
        else:
            end, radius, ended = self._step(number, point, radius)
        # what a fold's records would change is taken from the linearisation, where the search ended
        self.by_fold = [end + (solution - whole) for solution in validation.points[self.pull]]
        return end, radius, ended

    def _tune_scale(self, around: Linearisation, point: Tensor) -> None:
        """The best scale near that of `point`, or that one, if the linearisation promised too much."""
        self.scale = float(around.minimise(math.inf, RADIUS)[0][0, 0])
        tuned, first = self.uniform(self.scale), float(point[0, 0])
        if abs(self.scale - first) <= BETWEEN:
            bend = (self.known["base"] - around.predicted(self.uniform(0.0))) / first**2
            embeddings = around.predicted(tuned) + bend * (self.scale - first) ** 2
        else:
            embeddings = self.embed(tuned)
        self.known["scale"] = embeddings
        if self.value(tuned, embeddings, 0.0) > self.value(point, self.known["point"], 0.0):
            self.scale, self.known["scale"] = first, self.known["point"]

    def _step(self, number: int, point: Tensor, radius: float) -> tuple[Tensor, float, bool]:
        """A step from `point` that makes the objective smaller, and whether there is none."""
        around, pull = self.around, self.pull
        assert around is not None
        before = self.value(point, self.known["point"], pull)
        for _ in range(ATTEMPTS):
            trial, predicted = around.minimise(pull, radius)
            if before - predicted <= NEGLIGIBLE * abs(before):
                return point, radius, True
            embeddings = self.embed(trial)
            after = self.value(trial, embeddings, pull)
            ratio = processes.of_first((before - after) / (before - predicted))
            numbers = {
                "before": before, "predicted": predicted, "after": after, "ratio": ratio, "radius": radius,
                "pull": pull,
            }  # fmt: skip
            reached = float((trial - point).abs().max()) > 0.99 * radius
            radius = _next_radius(radius, ratio, reached)
            if ratio >= ACCEPT:
                self._keep(number, trial, embeddings, **numbers)
                return trial, radius, False
            coefficients = self.problem.mean_coefficients(trial).tolist()
            texts = self.problem.live.embedded
            self.trajectory.step(number, self.losses(embeddings), coefficients, texts=texts, **numbers)
        return point, radius, True

    def _pulls(self) -> Sequence[float]:
        """All pulls, or where a task has too few records one scale for all."""
        counts = {name: task.measure.usable for name, task in self.folds.tasks.items()}
        fewest = min(counts, key=counts.__getitem__)
        if counts[fewest] >= FEWEST:
            return PULLS
        log.warning(
            "the probe holds %d records of task %s: too few to choose coefficients by, so there is one scale "
            "for all; %d would be enough",
            counts[fewest],
            fewest,
            FEWEST,
        )
        return PULLS[:1]
