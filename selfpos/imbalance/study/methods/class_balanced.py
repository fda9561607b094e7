"""The class-balanced loss: weights by the effective number of examples."""

from __future__ import annotations

from torch import Tensor

from selfpos.imbalance.study.methods.losses import cross_entropy, effective_number_weights, weigh
from selfpos.imbalance.study.methods.registry import Method, register


def class_balanced(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """Softmax cross entropy weighted by (1 − β)/(1 − β^n_i), β = 0.9999."""
    return weigh(cross_entropy(logits, targets, counts, progress), targets, effective_number_weights(counts))


register(Method("class-balanced", "Cui et al. 2019, arXiv 1901.05555, equation 2", loss=class_balanced))
