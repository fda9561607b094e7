"""Focal loss, plain and with class weights."""

from __future__ import annotations

from torch import Tensor

from selfpos.imbalance.study.methods.losses import cross_entropy, effective_number_weights, weigh
from selfpos.imbalance.study.methods.registry import Method, register

GAMMA = 2.0


def focal(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """−(1 − p_t)^γ log p_t with γ = 2 on the softmax."""
    loss = cross_entropy(logits, targets, counts, progress)
    return (1 - (-loss).exp()) ** GAMMA * loss


def focal_balanced(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """The same times α_y, the class-balanced weight. The weight stays outside p_t; inside, it would no longer be a probability."""
    return weigh(focal(logits, targets, counts, progress), targets, effective_number_weights(counts))


register(Method("focal", "Lin et al. 2017, arXiv 1708.02002, equation 4", loss=focal))
register(
    Method(
        "focal-balanced", "Lin et al. 2017, equation 5, with the α of Cui et al. 2019", loss=focal_balanced
    )
)
