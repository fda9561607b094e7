"""Cross entropy weighted by 1/n_i."""

from __future__ import annotations

from torch import Tensor

from selfpos.imbalance.study.methods.losses import cross_entropy, to_mean_one, weigh
from selfpos.imbalance.study.methods.registry import Method, register


def weighted_cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """w_i ∝ 1/n_i with Σ w = K; averaged over the batch by Σ w."""
    return weigh(cross_entropy(logits, targets, counts, progress), targets, to_mean_one(1 / counts.float()))


register(Method("weighted", "inverse class frequency", loss=weighted_cross_entropy))
