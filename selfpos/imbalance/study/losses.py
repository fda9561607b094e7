"""Methods that change the loss (class weights, focal loss, margins, logit adjustment) or mix the images.

Shapes: logits (B, S, K), targets (B, S), counts and weights (S, K).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfpos.imbalance.study.networks import COSINE_SCALE
from selfpos.imbalance.study.trainer import cross_entropy

BETA = 0.9999  # of the effective number of examples
GAMMA = 2.0  # of the focal loss
MAX_MARGIN = 0.5  # of LDAM
ALPHA = 1.0  # of mixup's Beta distribution
KAPPA, TAU = 3.0, 0.5  # of Remix
DEFERRED = 0.8  # share of the training before LDAM's weights set in


def weigh(losses: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Each loss times its class's weight; the mean is Σ w l / Σ w, as of `CrossEntropyLoss(weight)`."""
    chosen = weights.gather(1, targets.T).T
    return losses * chosen * (len(losses) / chosen.sum(dim=0))


def to_mean_one(weights: Tensor) -> Tensor:
    """Weights scaled to sum to the number of classes, network by network."""
    return weights * (weights.shape[1] / weights.sum(dim=1, keepdim=True))


def effective_number_weights(counts: Tensor) -> Tensor:
    """w_i ∝ (1 − β) / (1 − β^n_i), summing to K (Cui et al. 2019, equation 2); β^n needs float64."""
    return to_mean_one((1 - BETA) / (1 - BETA ** counts.double())).float()


def weighted_cross_entropy(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """w_i ∝ 1/n_i with Σ w = K; averaged over the batch by Σ w."""
    return weigh(cross_entropy(logits, targets, counts, progress), targets, to_mean_one(1 / counts.float()))


def class_balanced(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """Cross entropy weighted by (1 − β)/(1 − β^n_i)."""
    return weigh(cross_entropy(logits, targets, counts, progress), targets, effective_number_weights(counts))


def focal(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """−(1 − p_t)^γ log p_t on the softmax."""
    loss = cross_entropy(logits, targets, counts, progress)
    return (1 - (-loss).exp()) ** GAMMA * loss


def focal_balanced(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """The same times the class-balanced weight, outside p_t, which would else be no probability."""
    return weigh(focal(logits, targets, counts, progress), targets, effective_number_weights(counts))


def ldam_drw(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """CE(s · (cos θ − m_y at the true class)), m_j = C · n_j^−¼, max m = ½; class-balanced at the end.

    `logits` are those of the cosine head, which include the scale s.
    """
    margins = counts.float() ** -0.25
    margins = margins * (MAX_MARGIN / margins.max(dim=1, keepdim=True).values)
    chosen = margins.gather(1, targets.T).T * COSINE_SCALE
    shifted = logits.scatter_add(2, targets[..., None], -chosen[..., None].to(logits.dtype))
    loss = cross_entropy(shifted, targets, counts, progress)
    weights = effective_number_weights(counts) if progress >= DEFERRED else torch.ones_like(margins)
    return weigh(loss, targets, weights)


def logit_adjusted(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """CE(z + τ log π) with π_i = n_i / Σ n and τ = 1."""
    prior = (counts / counts.sum(dim=1, keepdim=True)).log()
    return cross_entropy(logits + prior.float(), targets, counts, progress)


def balanced_softmax(logits: Tensor, targets: Tensor, counts: Tensor, progress: float) -> Tensor:
    """CE(z + log n): the same up to a constant."""
    return cross_entropy(logits + counts.float().log(), targets, counts, progress)


def mixup(
    images: Tensor, targets: Tensor, counts: Tensor, rngs: Sequence[np.random.Generator]
) -> tuple[Tensor, Tensor, Tensor]:
    """λ x_a + (1 − λ) x_b with λ ~ Beta(1, 1) per network and batch, x_b from its batch; labels alike."""
    batch, networks = targets.shape
    shares = torch.from_numpy(np.array([rng.beta(ALPHA, ALPHA) for rng in rngs])).to(images)
    partners = torch.from_numpy(np.stack([rng.permutation(batch) for rng in rngs], axis=1)).to(images.device)
    others = images[partners, torch.arange(networks, device=images.device)]
    weight = shares.view(1, networks, *[1] * (images.ndim - 2))
    return (
        weight * images + (1 - weight) * others,
        targets.gather(0, partners),
        shares.expand(batch, networks),
    )


def remix(
    images: Tensor, targets: Tensor, counts: Tensor, rngs: Sequence[np.random.Generator]
) -> tuple[Tensor, Tensor, Tensor]:
    """mixup's images, but with the label of the rarer class alone where class sizes differ by κ = 3.

    Its image must have a share of 1 − τ = ½ or more.
    """
    mixed, others, shares = mixup(images, targets, counts, rngs)
    ratio = counts.gather(1, targets.T).T / counts.gather(1, others.T).T
    shares = shares.clone()
    to_other = (ratio >= KAPPA) & (shares < TAU)
    to_first = (ratio <= 1 / KAPPA) & (1 - shares < TAU)
    return mixed, others, shares.masked_fill(to_other, 0.0).masked_fill(to_first, 1.0)
