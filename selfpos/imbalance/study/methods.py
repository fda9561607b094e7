"""All methods: ways to train a network, and second stages on a trained one.

Shapes: logits (B, S, K), targets (B, S), counts and weights (S, K).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from selfpos.errors import SelfposError, unknown
from selfpos.imbalance.study import heads
from selfpos.imbalance.study.networks import COSINE_SCALE
from selfpos.imbalance.study.sampling import Ints, oversample, undersample
from selfpos.imbalance.study.trainer import Loss, Mix, cross_entropy

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
    """CE(s · (cos θ − m_y at the true class)), m_j = C · n_j^−¼, max m = ½; class-balanced at the end."""
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
    mixed = weight * images + (1 - weight) * others
    return mixed, targets.gather(0, partners), shares.expand(batch, networks)


def remix(
    images: Tensor, targets: Tensor, counts: Tensor, rngs: Sequence[np.random.Generator]
) -> tuple[Tensor, Tensor, Tensor]:
    """mixup's images, but with the label of the rarer class alone where class sizes differ by κ = 3 or more
    and its image has a share above 1 − τ = ½.
    """
    mixed, others, shares = mixup(images, targets, counts, rngs)
    ratio = counts.gather(1, targets.T).T / counts.gather(1, others.T).T
    shares = shares.clone()
    to_other = (ratio >= KAPPA) & (shares < TAU)
    to_first = (ratio <= 1 / KAPPA) & (1 - shares < TAU)
    return mixed, others, shares.masked_fill(to_other, 0.0).masked_fill(to_first, 1.0)


BUDA = "Buda, Maki, Mazurowski 2018, arXiv 1710.05381"
SAMPLING = f"{BUDA}, sections 3.1.1 and 4.5"
TWO_PHASE = f"Havaei et al. 2017; {BUDA}, section 3.1.3"
LIN, CUI = "Lin et al. 2017, arXiv 1708.02002", "Cui et al. 2019, arXiv 1901.05555"
KANG = "Kang et al. 2020, arXiv 1910.09217, section 4"


@dataclass(frozen=True)
class Method:
    """A way to train a network from its first weights.

    Or, with `refit`, a second stage: the networks of the method `parent` keep their trunks and get other
    heads.
    """

    name: str
    source: str
    loss: Loss = cross_entropy
    resample: Callable[[Ints, int, float], Ints] | None = None  # labels, seed, ratio → positions to train on
    ratio: float = 1.0
    mix: Mix | None = None
    cosine_head: bool = False
    optimizer: Literal["adamw"] | None = None  # None: the recipe's
    size_matched: bool = False
    with_second_stage: bool = False  # as many iterations as a first and a second stage together
    refit: Callable[[heads.Stage], heads.Heads] | None = None
    parent: str | None = None


ALL = [
    Method("baseline", BUDA),
    # The study lacks this control: as many examples, but balanced, separates the loss of balance from that of
    # data.
    Method("size-matched", "control: the same total number of examples, balanced", size_matched=True),
    # Heavy-tailed class sizes slow rare classes under SGD and much less under Adam.
    Method("adamw", "Kunstner et al. 2024, arXiv 2402.19449; Loshchilov and Hutter 2019", optimizer="adamw"),
    Method("ros", SAMPLING, resample=oversample),
    Method("rus", SAMPLING, resample=undersample),
    Method(
        "ros-long",
        "control: ROS for as many iterations as methods with a second stage have in both",
        resample=oversample,
        with_second_stage=True,
    ),
    Method("weighted", "inverse class frequency", loss=weighted_cross_entropy),
    Method("class-balanced", f"{CUI}, equation 2", loss=class_balanced),
    Method("focal", f"{LIN}, equation 4", loss=focal),
    Method("focal-balanced", f"{LIN}, equation 5, with the α of {CUI}", loss=focal_balanced),
    Method("ldam-drw", "Cao et al. 2019, arXiv 1906.07413, equations 10-13", loss=ldam_drw, cosine_head=True),
    Method("logit-adjustment", "Menon et al. 2021, arXiv 2007.07314, equation 10", logit_adjusted),
    Method("balanced-softmax", "Ren et al. 2020, arXiv 2007.10740, equation 4", balanced_softmax),
    Method("mixup", "Zhang et al. 2018, arXiv 1710.09412, equation 1", mix=mixup),
    Method("remix", "Chou et al. 2020, arXiv 2007.03943, equations 4-6", mix=remix),
    Method("two-phase-ros", TWO_PHASE, refit=heads.two_phase, parent="ros"),
    Method("two-phase-rus", TWO_PHASE, refit=heads.two_phase, parent="rus"),
    Method("crt", KANG, refit=heads.retrain, parent="baseline"),
    Method("lws", KANG, refit=heads.learn_scales, parent="baseline"),
    Method("tau-norm", KANG, refit=heads.normalise, parent="baseline"),
    Method("ncm", f"nearest class mean; {KANG}", refit=heads.nearest_mean, parent="baseline"),
    Method("smote", "Chawla et al. 2002, in feature space", refit=heads.smote, parent="baseline"),
]
METHODS = {method.name: method for method in sorted(ALL, key=lambda method: method.name)}


def get_method(name: str) -> Method:
    """The method `name`; `ros:R` and `rus:R` sample to the ratio R. Raises SelfposError for unknown names."""
    stem, _, ratio = name.partition(":")
    if stem not in METHODS:
        raise unknown("imbalance method", stem, METHODS)
    method = METHODS[stem]
    if not ratio:
        return method
    try:
        target = float(ratio)
    except ValueError:
        target = 0.0
    if method.resample is None or not 1 <= target < math.inf:
        raise SelfposError(f"method '{name}': only ros:R and rus:R take a ratio, a number of 1 or more")
    return replace(method, name=name, ratio=target)
