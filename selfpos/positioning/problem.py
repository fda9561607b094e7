"""The minimisation that a search solves: parameters → coefficients → weights → losses and gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfpos.errors import SelfposError
from selfpos.positioning.live import LiveModel
from selfpos.positioning.objective import Balance, Batch, TaskProbe, TextTable, losses_of, texts_of
from selfpos.positioning.space import get_space
from selfpos.storage.model_class import MULTI_VECTOR, SPARSE
from selfpos.vectors import tensor_gram
from selfpos.vectors.names import layer_name

if TYPE_CHECKING:
    from selfpos.recipe import PositioningSettings

CEILING_PRICE = 10.0  # of a task's value beyond its ceiling, in units of the base's value
SHRINKAGE = 1.0  # the pull of finer coefficients towards the model's


def hierarchy(keys: Sequence[str], granularity: str) -> tuple[list[str], Tensor]:
    """The parameter rows' names for granularity `model`, `layer` or `tensor`, and the lookup (T, R).

    Effective parameters of a tensor are the model's row + its layer's offset + its own offset: lookup @
    parameters, 1 where a tensor takes part in a row. Offsets start at zero and are pulled back to it.
    """
    levels: dict[str, list[list[str]]] = {
        "model": [],
        "layer": [[layer_name(key) for key in keys]],
        "tensor": [[layer_name(key) for key in keys], list(keys)],
    }
    rows, columns = ["model"], [torch.ones(len(keys), dtype=torch.float64)]
    for level in levels[granularity]:
        for name in dict.fromkeys(level):
            column = torch.tensor([float(member == name) for member in level], dtype=torch.float64)
            # a layer of one tensor needs one offset
            if not any(torch.equal(column, other) for other in columns):
                rows.append(name)
                columns.append(column)
    return rows, torch.stack(columns, 1)


class Problem:
    """Everything a search needs. It begins at the parameters `start`, (R, P) float64."""

    def __init__(
        self, live: LiveModel, tasks: Mapping[str, TaskProbe], settings: PositioningSettings
    ) -> None:
        self.live, self.tasks, self.settings = live, tasks, settings
        self.names = [vector.name for vector in live.vectors]
        grams = torch.from_numpy(np.stack([tensor_gram(live.vectors, key) for key in live.keys]))  # (T, N, N)
        self.gram = grams.sum(0)
        for name, squared_length in zip(self.names, self.gram.diagonal().tolist(), strict=True):
            if not math.isfinite(squared_length):
                raise SelfposError(
                    f"task vector {name} has no finite length: "
                    "its weights, or the base's, hold NaN or infinite numbers"
                )
        squared = torch.diagonal(grams, dim1=-2, dim2=-1)  # (T, N)
        total, everything = squared.sum(0), squared.sum()
        # (T, N): the share of each vector's squared length that lies in each tensor
        self.tensor_shares = squared / torch.where(total > 0, total, torch.ones_like(total))
        self.rows, self.lookup = hierarchy(live.keys, settings.granularity)
        # (R, N): the share of each vector in each row, by its squared length; the model's row is no offset
        self.offset_shares = self.lookup.T @ squared / torch.where(total > 0, total, torch.ones_like(total))
        self.offset_shares[0] = 0
        if everything > 0:
            self.weights = squared.sum(1) / everything
        else:
            self.weights = torch.full((len(live.keys),), 1 / len(live.keys)).double()
        self.space = get_space(settings.space)
        first = self.space.start(self.gram)
        offsets = torch.zeros(len(self.rows) - 1, first.shape[1], dtype=torch.float64)
        self.start = torch.cat([first, offsets])
        self.balance = Balance(settings.ratios)

    def table(self, parameters: Tensor) -> Tensor:
        """Coefficients of every tensor, (T, N), differentiable in the parameters."""
        return self.space.coefficients(self.lookup @ parameters, self.gram)

    def apply(self, parameters: Tensor) -> None:
        """Set the live model's weights to those of `parameters`."""
        self.live.set_coefficients(self.table(parameters.detach()))

    def mean_coefficients(self, parameters: Tensor) -> Tensor:
        """One coefficient a vector, (N,): the mean over tensors, by the vector's squared length in each."""
        table, shares = self.table(parameters), self.tensor_shares
        return torch.where(shares.sum(0) == 0, table.mean(0), (table * shares).sum(0))

    def penalty(self, parameters: Tensor) -> Tensor:
        """The cost of a point beside its loss, with w_t the share of tensor t of the vectors' squared length.

        - μ·λ of the paper;
        - ρ · mean over vectors of Σ share · offset², which shrinks finer rows towards coarser ones.
        """
        rows = self.lookup @ parameters
        value = self.settings.penalty * (self.space.scale(rows, self.gram) * self.weights).sum()
        if len(self.rows) > 1:
            offsets = parameters[:, : len(self.names)]
            value = value + SHRINKAGE * (self.offset_shares * offsets.square()).sum() / len(self.names)
        return value

    def task_weights(self, tasks: Iterable[str]) -> dict[str, float]:
        """The share of each task in the mean, by `ratios`."""
        ratios = {task: self.settings.ratios.get(task, 1.0) for task in tasks}
        return {task: ratio / sum(ratios.values()) for task, ratio in ratios.items()}

    def objective(
        self,
        values: Mapping[str, Tensor],
        units: Mapping[str, float],
        parameters: Tensor,
        pull: float,
        ceilings: Mapping[str, float] | None = None,
    ) -> Tensor:
        """What the linearised search minimises: the mean of the tasks' values over `units`, plus prices.

        - ρ · mean (c_i − mean c)², the pull to one scale for all; with ρ = ∞ the parameters keep to it;
        - a price on a value above its task's ceiling;
        - that of `penalty`.
        """
        weights = self.task_weights(values)
        value = torch.stack([weights[task] * v / units[task] for task, v in values.items()]).sum().double()
        for task, ceiling in (ceilings or {}).items():
            value = value + CEILING_PRICE * (values[task] - ceiling).clamp_min(0) / units[task]
        if math.isfinite(pull):
            coefficients = parameters[0, : len(self.names)]
            value = value + pull * (coefficients - coefficients.mean()).square().mean()
        return value + self.penalty(parameters)

    def gradient(self, parameters: Tensor, batches: Sequence[Batch]) -> tuple[dict[str, float], Tensor]:
        """Losses of `batches` by task, and the gradient (R, P) of their balance plus penalty."""
        variable = parameters.detach().clone().requires_grad_(True)
        table = self.table(variable)
        self.live.set_coefficients(table.detach())
        with self.live.collect() as by_tensor:
            compares = self.live.kind in (SPARSE, MULTI_VECTOR)  # which chunks by itself
            if self.settings.chunk and not compares:
                losses = self._backward_in_chunks(batches, self.settings.chunk)
            else:
                losses = losses_of(self.tasks, batches, self.live.embed(texts_of(batches)))
                self.balance(losses).backward()
        total = (table * self.live.processes.sum(by_tensor).cpu()).sum() + self.penalty(variable)
        (gradient,) = torch.autograd.grad(total, variable)
        return {task: value.item() for task, value in losses.items()}, gradient

    def _backward_in_chunks(self, batches: Sequence[Batch], size: int) -> dict[str, Tensor]:
        """The backward pass with the activations of at most `size` texts in memory (arXiv 2101.06983).

        All texts are embedded without a graph, the loss is differentiated by the embeddings, and each chunk
        is embedded again with a graph that carries its share of that gradient: twice the forward passes.
        """
        texts = texts_of(batches)
        with torch.no_grad():
            embeddings = self.live.embed(texts)
        embeddings.requires_grad_(True)
        losses = losses_of(self.tasks, batches, embeddings)
        self.balance(losses).backward()
        assert embeddings.grad is not None
        order = self.live.by_length(texts)
        processes = self.live.processes
        for chosen in processes.chunks(order, size)[processes.rank :: processes.count]:
            self.live.forward([texts[i] for i in chosen]).backward(embeddings.grad[chosen])
        self.live.embedded += len(texts)
        return losses

    @torch.no_grad()
    def losses(self, parameters: Tensor, batches: Sequence[Batch]) -> dict[str, float]:
        """Losses of `batches` by task, forward only."""
        return self._losses_at(self.table(parameters), batches)

    def value(self, parameters: Tensor, losses: Mapping[str, float]) -> float:
        """The objective, given the losses at `parameters`: their balance plus the penalty."""
        return self.balance.value(losses) + self.penalty(parameters).item()

    @torch.no_grad()
    def measure_base(self, batches: Sequence[Batch]) -> None:
        """Measure the base's losses on fixed `batches`, the units of the losses with `normalise: base`."""
        if self.settings.normalise == "base":
            zeros = torch.zeros(len(self.live.keys), len(self.names), dtype=torch.float64)
            self.balance = replace(self.balance, base=self._losses_at(zeros, batches))

    def _losses_at(self, table: Tensor, batches: Sequence[Batch]) -> dict[str, float]:
        self.live.set_coefficients(table)
        texts = texts_of(batches)
        distinct = TextTable(texts)
        embeddings = self.live.embed(distinct.texts)[distinct.rows(texts)]
        losses = losses_of(self.tasks, batches, embeddings)
        return {task: value.item() for task, value in losses.items()}
