"""The minimisation that a search is given: parameters → coefficients → weights → losses of the probe, and their gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfpos.errors import SelfposError
from selfpos.positioning.balance import Balance, check_ratios
from selfpos.positioning.groups import hierarchy
from selfpos.positioning.live import LiveModel
from selfpos.positioning.objective import Batch, TaskProbe, losses_of, texts_of
from selfpos.positioning.space import chain_order, get_space
from selfpos.vectors import tensor_gram

if TYPE_CHECKING:
    from selfpos.recipe import PositioningSettings

SMALLEST_A = 1e-3  # the a_i of the chain only make sense above zero; a step below is taken back to here


class Problem:
    """Everything a search needs. `start` are the parameters (R, P) to begin from; all arithmetic on them is float64.

    `grams` are the Gram matrices of the vectors in each tensor, (T, N, N), where they have been computed before.
    """

    def __init__(
        self,
        live: LiveModel,
        tasks: Mapping[str, TaskProbe],
        settings: PositioningSettings,
        grams: Tensor | None = None,
    ) -> None:
        self.live, self.tasks, self.settings = live, tasks, settings
        self.names = [vector.name for vector in live.vectors]
        if grams is None:
            grams = torch.from_numpy(np.stack([tensor_gram(live.vectors, key) for key in live.keys]))
        self.grams, self.gram = grams, grams.sum(0)
        if wrong := [
            name
            for name, length in zip(self.names, self.gram.diagonal().tolist(), strict=True)
            if not math.isfinite(length)
        ]:
            raise SelfposError(
                f"task vector {wrong[0]} has no finite length: its weights, or the base's, hold NaN or infinite numbers"
            )
        self.angles = grams if settings.angles == "tensor" else self.gram
        squared = torch.diagonal(grams, dim1=-2, dim2=-1)  # (T, N)
        self.hierarchy = hierarchy(live.keys, settings.granularity, layer_groups=settings.layer_groups)
        self.space = get_space(
            settings.space,
            through_angle=settings.angle_gradient,
            order=chain_order(self.gram, settings.order),
        )
        first = self.space.start(self.gram)
        self.start = torch.cat(
            [first, torch.zeros(len(self.hierarchy.rows) - 1, first.shape[1], dtype=torch.float64)]
        )
        total = squared.sum(0)
        self.tensor_shares = squared / torch.where(
            total > 0, total, torch.ones_like(total)
        )  # (T, N): where a vector's length lies
        self.offset_shares = self.hierarchy.offset_shares(squared)  # (R, N)
        everything = squared.sum()
        self.weights = (
            squared.sum(1) / everything
            if everything > 0
            else torch.full((len(live.keys),), 1 / len(live.keys)).double()
        )
        check_ratios(settings.ratios, tasks)
        self.balance = Balance(settings.normalise, settings.balance, settings.ratios)

    def table(self, parameters: Tensor) -> Tensor:
        """Coefficients of every tensor, (T, N), differentiable in the parameters."""
        rows: Tensor = self.space.coefficients(self.hierarchy.lookup @ parameters, self.angles)
        return rows

    def admissible(self, parameters: Tensor) -> Tensor:
        """`parameters`, rows (R, P) or the model's row (P,), with the a_i of a chain that is to stay positive taken back above zero."""
        if self.space.positive and self.settings.positive:
            parameters = parameters.clone()
            parameters.view(-1, parameters.shape[-1])[0, : len(self.names)].clamp_(min=SMALLEST_A)
        return parameters

    def mean_coefficients(self, parameters: Tensor) -> Tensor:
        """One coefficient a vector, (N,): the mean over tensors, each counted by its share of the vector's squared length."""
        table, shares = self.table(parameters), self.tensor_shares
        return torch.where(shares.sum(0) == 0, table.mean(0), (table * shares).sum(0))

    def penalty(self, parameters: Tensor) -> Tensor:
        """What a point costs beside its loss, with every tensor counted by its share w_t of the vectors' squared length:

        μ·λ of the paper; ρ · mean over vectors of Σ share · offset², which shrinks finer rows towards coarser ones; and the price ν of
        extrapolation beyond a specialist, or to the other side of the base: ν · Σ_t w_t · mean over vectors of max(0, c − 1)² + max(0, −c)².
        """
        rows = self.hierarchy.lookup @ parameters
        value = self.settings.penalty * (self.space.scale(rows, self.angles) * self.weights).sum()
        if len(self.hierarchy.rows) > 1:
            offsets = parameters[:, : len(self.names)]
            value = value + self.settings.shrinkage * (self.offset_shares * offsets.square()).sum() / len(
                self.names
            )
        if self.settings.extrapolation:
            table = self.table(parameters)
            beyond = (table - 1).clamp_min(0).square() + (-table).clamp_min(0).square()
            value = value + self.settings.extrapolation * (beyond.mean(1) * self.weights).sum()
        return value

    def gradient(self, parameters: Tensor, batches: Sequence[Batch]) -> tuple[dict[str, float], Tensor]:
        """Losses of `batches` by task, and the gradient of their balance plus penalty with respect to the parameters, (R, P)."""
        variable = parameters.detach().clone().requires_grad_(True)
        table = self.table(variable)
        self.live.place(table.detach())
        with self.live.collect() as by_tensor:
            if self.settings.chunk:
                losses = self._backward_in_chunks(batches, self.settings.chunk)
            else:
                losses = losses_of(self.tasks, batches, self.live.embed(texts_of(batches)))
                self.balance(losses).backward()
        total = (table * self.live.processes.sum(by_tensor).cpu()).sum() + self.penalty(variable)
        (gradient,) = torch.autograd.grad(total, variable)
        return {task: value.item() for task, value in losses.items()}, gradient

    def _backward_in_chunks(self, batches: Sequence[Batch], size: int) -> dict[str, Tensor]:
        """The same backward pass with the activations of at most `size` texts in memory (GradCache, Gao et al., arXiv 2101.06983).

        All texts are embedded without a graph, the loss is differentiated with respect to the embeddings, and each chunk is then embedded
        again with a graph to carry its share of that gradient on. Twice the forward passes, and batches as large as one likes.
        """
        texts = texts_of(batches)
        with torch.no_grad():
            embeddings = self.live.embed(texts)
        embeddings.requires_grad_(True)
        losses = losses_of(self.tasks, batches, embeddings)
        self.balance(losses).backward()
        assert embeddings.grad is not None
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        processes = self.live.processes
        for chosen in processes.chunks(order, size)[processes.rank :: processes.count]:
            self.live.embed([texts[i] for i in chosen], alone=True).backward(embeddings.grad[chosen])
        self.live.embedded += len(texts)
        return losses

    @torch.no_grad()
    def losses(self, parameters: Tensor, batches: Sequence[Batch]) -> dict[str, float]:
        """Losses of `batches` by task, forward only, at the weights of `parameters`."""
        return self._losses_at(self.table(parameters), batches)

    def value(self, parameters: Tensor, losses: Mapping[str, float]) -> float:
        """What is minimised, given the losses there: their balance plus the penalty."""
        return self.balance.value(losses) + self.penalty(parameters).item()

    @torch.no_grad()
    def measure_references(self, batches: Sequence[Batch]) -> None:
        """Measure what losses are normalised by, on fixed `batches`: the base's, and the best that any one specialist has on each task."""
        if not self.balance.needs_references:
            return
        shape = (len(self.live.keys), len(self.names))
        base = self._losses_at(torch.zeros(shape, dtype=torch.float64), batches)
        best: dict[str, float] = {}
        if self.balance.normalise == "gain":
            for place in range(len(self.names)):
                alone = torch.zeros(shape, dtype=torch.float64)
                alone[:, place] = 1
                for task, loss in self._losses_at(alone, batches).items():
                    best[task] = min(loss, best.get(task, loss))
        self.balance = replace(self.balance, base=base, specialist=best)

    def _losses_at(self, table: Tensor, batches: Sequence[Batch]) -> dict[str, float]:
        self.live.place(table)
        return {
            task: value.item()
            for task, value in losses_of(self.tasks, batches, self.live.embed(texts_of(batches))).items()
        }
