"""The pieces the methods' losses are made of. Shapes: logits (B, S, K), targets (B, S), counts and weights (S, K)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

# logits (B, S, K), targets (B, S), class counts (S, K), progress 0 … 1 → losses (B, S) whose mean over B is each network's loss
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
# images (B, S, …), targets (B, S), class counts (S, K), a generator per network → mixed images, second targets, share of the first targets (B, S)
Mix = Callable[[Tensor, Tensor, Tensor, Sequence[np.random.Generator]], tuple[Tensor, Tensor, Tensor]]


def cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """−log softmax(z)_y, (B, S)."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(
        targets
    )


def weigh(losses: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Each loss times its class's weight; the mean over the batch is then Σ w l / Σ w, which is what torch's `CrossEntropyLoss(weight)` takes."""
    chosen = weights.gather(1, targets.T).T
    return losses * chosen * (len(losses) / chosen.sum(dim=0))


def to_mean_one(weights: Tensor) -> Tensor:
    """Weights scaled to sum to the number of classes, network by network."""
    return weights * (weights.shape[1] / weights.sum(dim=1, keepdim=True))


def effective_number_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Cui et al. 2019, equation 2: w_i ∝ (1 − β) / (1 − β^n_i), summing to K. float64 inside: β^n needs it. Returns float32."""
    weights = (1 - beta) / (1 - beta ** counts.double())
    return to_mean_one(weights).float()
