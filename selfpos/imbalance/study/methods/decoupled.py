"""Decoupled training (Kang et al. 2020): the trunk from natural sampling; the head retrained (cRT), rescaled (LWS) or normalised (τ-norm)."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfpos.imbalance.study.methods.registry import Refit, register
from selfpos.imbalance.study.metrics import class_recalls
from selfpos.imbalance.study.networks import Network, classifier_of, init_head
from selfpos.imbalance.study.sampling import class_balanced_stream
from selfpos.imbalance.study.second_stage import Stage
from selfpos.imbalance.study.wide import CosineHead

Ints = NDArray[np.int64]
SOURCE = "Kang et al. 2020, arXiv 1910.09217, section 4"


def retrain(stage: Stage) -> list[nn.Sequential]:
    """cRT: heads drawn anew and trained on class-balanced batches, the mirror image of two-phase training."""
    heads = []
    for network, sample in zip(stage.networks, stage.samples, strict=True):
        fresh = copy.deepcopy(network)
        init_head(fresh, sample.seed + 2000)
        heads.append(fresh.head)
    stage.fit_heads(heads, _balanced_streams(stage))
    return heads


class Scaled(nn.Module):
    """Logits times one learned factor per class, (B, groups·K, …)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(classes))

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.weight[:, None, None]


def learn_scales(stage: Stage) -> list[nn.Sequential]:
    """LWS: only a factor f_i of each class's weights (and bias, so of its logit) is trained, on class-balanced batches."""
    heads = []
    for network in stage.networks:
        head = copy.deepcopy(network.head).requires_grad_(False)
        heads.append(nn.Sequential(*head, Scaled(network.classifier.weight.shape[0])))
    stage.fit_heads(heads, _balanced_streams(stage))
    return heads


def normalise(stage: Stage) -> list[nn.Sequential]:
    """τ-norm: w_i / ‖w_i‖^τ, biases dropped; τ of 0, 0.1, …, 2 with the best balanced accuracy on validation, 1 where there is none."""
    taus = [round(0.1 * step, 1) for step in range(21)] if stage.has_validation else [1.0]
    candidates = {tau: [normalised_head(network, tau) for network in stage.networks] for tau in taus}
    if not stage.has_validation:
        return candidates[1.0]
    probs = stage.predict_validation({str(tau): heads for tau, heads in candidates.items()})
    labels = stage.validation_labels()
    best = [
        max(taus, key=lambda tau: class_recalls(probs[str(tau)][s], labels[s]).mean())
        for s in range(len(stage.networks))
    ]
    return [candidates[tau][s] for s, tau in enumerate(best)]


def normalised_head(network: Network, tau: float) -> nn.Sequential:
    """The network's head with its rows divided by their lengths to the power τ, and without biases."""
    changed = copy.deepcopy(network.head)
    target = classifier_of(changed)
    with torch.no_grad():
        target.weight.div_(target.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1) ** tau)
        if not isinstance(target, CosineHead) and target.bias is not None:
            target.bias.zero_()
    return changed


def _balanced_streams(stage: Stage) -> list[Iterator[Ints]]:
    size = stage.settings.batch_size
    return [
        class_balanced_stream(sample.positions, sample.labels, size, sample.seed) for sample in stage.samples
    ]


register(Refit("crt", SOURCE, parent="baseline", refit=retrain))
register(Refit("lws", SOURCE, parent="baseline", refit=learn_scales))
register(Refit("tau-norm", SOURCE, parent="baseline", refit=normalise))
