"""Gradient surgery (PCGrad): of conflicting gradients, each loses the part that opposes the other."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch

Gradient = list[torch.Tensor | None]
"""A tensor for each trained parameter, None for zero."""


def pcgrad_weights(gram: np.ndarray, orders: Sequence[Sequence[int]]) -> np.ndarray:
    """Weights w (T,) such that PCGrad of the gradients g_1 … g_T is Σ_j w_j g_j.

    `gram` (T, T, float64) holds their inner products, `orders[i]` the tasks in the order in which gradient i
    meets them. Yu et al., NeurIPS 2020, arXiv 2001.06782, algorithm 1: p_i = g_i; for each other j in order,
    if ⟨p_i, g_j⟩ < 0, p_i ← p_i − ⟨p_i, g_j⟩/‖g_j‖² · g_j; the step is Σ_i p_i.
    """
    weights = np.zeros(len(gram))
    for task, order in enumerate(orders):
        projected = np.zeros(len(gram))
        projected[task] = 1.0
        for other in order:
            product = projected @ gram[:, other]
            if other != task and product < 0:
                projected[other] -= product / gram[other, other]
        weights += projected
    return weights


class Surgery:
    """The gradients of one step, gathered task by task and combined by `pcgrad_weights`.

    It holds the gradients of all tasks but the last beside the usual one.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], seed: int) -> None:
        self._parameters, self._seed = parameters, seed
        self._gathered: list[Gradient] = []

    def set_aside(self) -> None:
        """Keep the parameters' gradients as those of one task, and clear them for the next."""
        self._gathered.append(self._take())

    def operate(self, step: int) -> None:
        """Take the last task's gradients, and set the parameters' gradients to the sum of all after surgery.

        The order of the projections depends on the seed and `step`.
        """
        gradients = [*self._gathered, self._take()]
        self._gathered = []
        rng = random.Random(f"surgery {self._seed} {step}")
        tasks = range(len(gradients))
        weights = pcgrad_weights(inner_products(gradients), [rng.sample(tasks, len(tasks)) for _ in tasks])
        for index, parameter in enumerate(self._parameters):
            for weight, gradient in zip(weights.tolist(), gradients, strict=True):
                part, gradient[index] = gradient[index], None
                if part is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = part.mul_(weight)
                else:
                    parameter.grad.add_(part, alpha=weight)

    def _take(self) -> Gradient:
        gradient = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return gradient


def inner_products(gradients: Sequence[Gradient]) -> np.ndarray:
    """The Gram matrix (T, T) of gradients; the products of tensors are summed in float64."""
    count = len(gradients)
    gram = np.zeros((count, count))
    for row in range(count):
        for column in range(row + 1):
            pairs = zip(gradients[row], gradients[column], strict=True)
            products = [
                torch.dot(a.flatten(), b.flatten()) for a, b in pairs if a is not None and b is not None
            ]
            if products:
                gram[row, column] = gram[column, row] = torch.stack(products).double().sum().item()
    return gram
