"""mixup and Remix: training on convex combinations of two images and of their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfpos.imbalance.study.methods.registry import Method, register

ALPHA = 1.0
KAPPA = 3.0
TAU = 0.5


def mixup(
    images: Tensor, targets: Tensor, counts: Tensor, rngs: Sequence[np.random.Generator]
) -> tuple[Tensor, Tensor, Tensor]:
    """λ x_a + (1 − λ) x_b with λ ~ Beta(1, 1) and x_b from the same network's batch, one λ per network and
    batch; labels alike.
    """
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
    """mixup's images, but the label goes wholly to the rarer class where class sizes differ by κ = 3 and its
    image has 1 − τ = ½ or more.
    """
    mixed, others, shares = mixup(images, targets, counts, rngs)
    ratio = counts.gather(1, targets.T).T / counts.gather(1, others.T).T
    shares = shares.clone()
    to_other = (ratio >= KAPPA) & (shares < TAU)
    to_first = (ratio <= 1 / KAPPA) & (1 - shares < TAU)
    return mixed, others, shares.masked_fill(to_other, 0.0).masked_fill(to_first, 1.0)


register(
    Method("mixup", "Zhang et al. 2018, arXiv 1710.09412, equation 1", mix=mixup),
    Method("remix", "Chou et al. 2020, arXiv 2007.03943, equations 4-6", mix=remix),
)
