"""LDAM-DRW: label-distribution-aware margins, with re-weighting deferred to the last fifth of training."""

from __future__ import annotations

import torch
from torch import Tensor

from selfpos.imbalance.study.methods.losses import cross_entropy, effective_number_weights, weigh
from selfpos.imbalance.study.methods.registry import Method, register
from selfpos.imbalance.study.wide import COSINE_SCALE

MAX_MARGIN = 0.5
DEFERRED = 0.8


def ldam_drw(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """CE(s · (cos θ − m_y at the true class)), m_j = C · n_j^−¼ with max m = ½; class-balanced weights from 0.8 of the iterations on.

    `logits` are those of the cosine head, which hold the scale s already.
    """
    margins = counts.float() ** -0.25
    margins = margins * (MAX_MARGIN / margins.max(dim=1, keepdim=True).values)
    chosen = margins.gather(1, targets.T).T * COSINE_SCALE
    loss = cross_entropy(
        logits.scatter_add(2, targets[..., None], -chosen[..., None].to(logits.dtype)),
        targets,
        counts,
        progress,
    )
    weights = effective_number_weights(counts) if progress >= DEFERRED else torch.ones_like(margins)
    return weigh(loss, targets, weights)


register(
    Method("ldam-drw", "Cao et al. 2019, arXiv 1906.07413, equations 10-13", loss=ldam_drw, cosine_head=True)
)
