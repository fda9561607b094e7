"""The minimisation that a search is given: parameters → coefficients → weights → losses of the probe, and their gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfpos.positioning.gradient import collect
from selfpos.positioning.groups import hierarchy
from selfpos.positioning.live import LiveModel
from selfpos.positioning.objective import Batch, TaskProbe, losses_of, texts_of
from selfpos.positioning.space import get_space
from selfpos.vectors import tensor_gram

if TYPE_CHECKING:
    from selfpos.recipe import PositioningSettings


class Problem:
    """Everything a search needs. `start` are the parameters (R, P) to begin from; all arithmetic on them is float64."""

    def __init__(self, live: LiveModel, tasks: Mapping[str, TaskProbe], settings: PositioningSettings) -> None:
        self.live, self.tasks, self.settings = live, tasks, settings
        self.names = [vector.name for vector in live.vectors]
        grams = torch.from_numpy(np.stack([tensor_gram(live.vectors, key) for key in live.keys]))
        self.gram = grams.sum(0)
        self.angles = grams if settings.angles == "tensor" else self.gram
        self.squared = torch.diagonal(grams, dim1=-2, dim2=-1)  # (T, N)
        self.hierarchy = hierarchy(live.keys, settings.granularity, layer_groups=settings.layer_groups)
        self.space = get_space(settings.space, through_angle=settings.angle_gradient)
        first = self.space.start(self.gram)
        self.start = torch.cat([first, torch.zeros(len(self.hierarchy.rows) - 1, first.shape[1], dtype=torch.float64)])
        total = self.squared.sum(0)
        used = torch.where(total > 0, total, torch.ones_like(total))
        self.tensor_shares = self.squared / used  # (T, N): where each vector's length lies
        self.offset_shares = self.hierarchy.offset_shares(self.squared)  # (R, N)

    def table(self, parameters: Tensor) -> Tensor:
        """Coefficients of every tensor, (T, N), differentiable in the parameters."""
        return self.space.coefficients(self.hierarchy.lookup @ parameters, self.angles)

    def mean_coefficients(self, parameters: Tensor) -> Tensor:
        """One coefficient a vector, (N,): the mean over tensors, each counted by its share of the vector's squared length."""
        table, shares = self.table(parameters), self.tensor_shares
        empty = shares.sum(0) == 0
        return torch.where(empty, table.mean(0), (table * shares).sum(0))

    def penalty(self, parameters: Tensor) -> Tensor:
        """μ·λ of the paper, and the shrinkage of finer rows towards coarser ones: ρ · mean over vectors of Σ share · offset²."""
        scale = self.space.scale(self.hierarchy.lookup @ parameters, self.angles)
        weights = self.squared.sum(1)
        total = weights.sum()
        mean = (scale * weights).sum() / total if total > 0 else scale.mean()
        value = self.settings.penalty * mean
        if len(self.hierarchy.rows) > 1 and self.settings.shrinkage:
            offsets = parameters[:, : len(self.names)]
            value = value + self.settings.shrinkage * (self.offset_shares * offsets.square()).sum() / len(self.names)
        return value

    def gradient(self, parameters: Tensor, batches: Sequence[Batch]) -> tuple[dict[str, float], Tensor]:
        """Losses of `batches` by task, and the gradient of their mean plus penalty with respect to the parameters, (R, P)."""
        variable = parameters.detach().clone().requires_grad_(True)
        table = self.table(variable)
        self.live.place(table.detach())
        with collect(self.live.parameters, self.live.deltas, len(self.names)) as by_tensor:
            losses = losses_of(self.tasks, batches, self.live.embed(texts_of(batches)))
            torch.stack(list(losses.values())).mean().backward()
        total = (table * by_tensor.cpu()).sum() + self.penalty(variable)
        (gradient,) = torch.autograd.grad(total, variable)
        return {task: value.item() for task, value in losses.items()}, gradient

    @torch.no_grad()
    def losses(self, parameters: Tensor, tasks: Mapping[str, TaskProbe], batches: Sequence[Batch]) -> dict[str, float]:
        """Losses of `batches` of `tasks` by task, forward only, at the weights of `parameters`."""
        self.live.place(self.table(parameters))
        return {task: float(value) for task, value in losses_of(tasks, batches, self.live.embed(texts_of(batches))).items()}
