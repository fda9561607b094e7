"""Logit adjustment as a loss, and balanced softmax, which is the same up to a constant for τ = 1."""

from __future__ import annotations

from torch import Tensor

from selfpos.imbalance.study.methods.losses import cross_entropy
from selfpos.imbalance.study.methods.registry import Method, register

TAU = 1.0


def logit_adjusted(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """CE(z + τ log π) with π_i = n_i / Σ n and τ = 1."""
    prior = (counts / counts.sum(dim=1, keepdim=True)).log()
    return cross_entropy(logits + TAU * prior.float(), targets, counts, progress)


def balanced_softmax(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """CE(z + log n)."""
    return cross_entropy(logits + counts.float().log(), targets, counts, progress)


register(Method("logit-adjustment", "Menon et al. 2021, arXiv 2007.07314, equation 10", loss=logit_adjusted))
register(Method("balanced-softmax", "Ren et al. 2020, arXiv 2007.10740, equation 4", loss=balanced_softmax))
