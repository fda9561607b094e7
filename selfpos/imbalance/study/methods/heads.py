"""Methods that replace the head of the baseline: retrained, rescaled, normalised, class means, and SMOTE."""

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
from selfpos.imbalance.study.sampling import class_balanced_stream, need_samplers, stream
from selfpos.imbalance.study.second_stage import Stage
from selfpos.imbalance.study.trainer import predict, validation_index
from selfpos.imbalance.study.wide import CosineHead, Dense

Ints = NDArray[np.int64]
KANG = "Kang et al. 2020, arXiv 1910.09217, section 4"
NEIGHBOURS = 5  # of SMOTE


def retrain(stage: Stage) -> list[nn.Sequential]:
    """cRT: new heads, trained on class-balanced batches."""
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
    """LWS: only a factor of each class's logit is trained, on class-balanced batches."""
    heads = []
    for network in stage.networks:
        head = copy.deepcopy(network.head).requires_grad_(False)
        heads.append(nn.Sequential(*head, Scaled(network.classifier.weight.shape[0])))
    stage.fit_heads(heads, _balanced_streams(stage))
    return heads


def normalise(stage: Stage) -> list[nn.Sequential]:
    """τ-norm: w_i / ‖w_i‖^τ without biases; τ from 0 to 2 by balanced accuracy on validation, else 1."""
    kept = validation_index(stage.samples)
    if not len(kept):
        return [normalised_head(network, 1.0) for network in stage.networks]
    taus = [round(0.1 * step, 1) for step in range(21)]
    candidates = {str(tau): [normalised_head(network, tau) for network in stage.networks] for tau in taus}
    log_probs = predict(stage.networks, candidates, stage.images, kept)
    chosen = []
    for index, labels in enumerate(stage.images.labels[kept].T):
        recalls = {tau: class_recalls(probs[index], labels).mean() for tau, probs in log_probs.items()}
        chosen.append(candidates[max(recalls, key=lambda tau: recalls[tau])][index])
    return chosen


def normalised_head(network: Network, tau: float) -> nn.Sequential:
    """The network's head with its rows divided by their lengths to the power τ, and without biases."""
    head = copy.deepcopy(network.head)
    layer = classifier_of(head)
    with torch.no_grad():
        layer.weight.div_(layer.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1) ** tau)
        if not isinstance(layer, CosineHead) and layer.bias is not None:
            layer.bias.zero_()
    return head


def _balanced_streams(stage: Stage) -> list[Iterator[Ints]]:
    size = stage.settings.batch_size
    return [
        class_balanced_stream(sample.positions, sample.labels, size, sample.seed) for sample in stage.samples
    ]


class Normalise(nn.Module):
    """Features (B, groups·F, 1, 1) scaled to unit length, network by network."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 1

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x.reshape(x.shape[0], self.groups, -1), dim=2).reshape(x.shape)


def nearest_mean(stage: Stage) -> list[nn.Sequential]:
    """NCM: −‖f − m_c‖² for the mean m_c of each class's unit-length features, less |f|², equal for all."""
    heads = []
    for features, sample in zip(stage.pooled_features, stage.samples, strict=True):
        directions = nn.functional.normalize(features, dim=1)
        labels = torch.from_numpy(sample.labels).to(directions.device)
        means = torch.stack([directions[labels == label].mean(dim=0) for label in range(len(sample.counts))])
        layer = _linear(2 * means, -means.square().sum(dim=1))
        heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), Normalise(), layer))
    return heads


def smote(stage: Stage) -> list[nn.Sequential]:
    """A linear head on pooled features that SMOTE balanced: x + u (x_nn − x) for one of 5 neighbours x_nn."""
    pools, labels, heads = [], [], []
    for features, sample in zip(stage.pooled_features, stage.samples, strict=True):
        x, y = _interpolated(features.cpu().numpy(), sample.labels, sample.counts, sample.seed)
        pools.append(torch.from_numpy(x[..., None, None].astype(np.float32)).to(features.device))
        labels.append(np.asarray(y, dtype=np.int64))
        generator = torch.Generator().manual_seed(sample.seed + 3000)
        bound = (3 / features.shape[1]) ** 0.5
        weight = (torch.rand(len(sample.counts), features.shape[1], generator=generator) * 2 - 1) * bound
        heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), _linear(weight, torch.zeros(len(weight)))))
    streams = [
        stream(np.arange(len(y)), stage.settings.batch_size, sample.seed)
        for y, sample in zip(labels, stage.samples, strict=True)
    ]
    stage.fit_heads_on(heads, pools, labels, streams)
    return heads


def _interpolated(x: np.ndarray, y: Ints, counts: Ints, seed: int) -> tuple[np.ndarray, Ints]:
    """Features (n, F) and labels (n,), balanced by SMOTE with at most as many neighbours as a class has.

    The example of a class with a single one is copied first.
    """
    need_samplers()
    from imblearn.over_sampling import SMOTE

    singles = np.flatnonzero(counts[y] == 1)
    x, y = np.concatenate([x, x[singles]]), np.concatenate([y, y[singles]])
    # One pass per number of neighbours: imbalanced-learn has one for all classes.
    for neighbours in sorted({min(NEIGHBOURS, int(count) - 1) for count in np.bincount(y)}):
        sizes = np.bincount(y)
        small = (np.minimum(NEIGHBOURS, sizes - 1) == neighbours) & (sizes < sizes.max())
        if small.any():
            strategy = {int(label): int(sizes.max()) for label in np.flatnonzero(small)}
            sampler = SMOTE(sampling_strategy=strategy, k_neighbors=neighbours, random_state=seed)
            x, y = sampler.fit_resample(x, y)
    return x, y


def _linear(weight: Tensor, bias: Tensor) -> Dense:
    layer = Dense(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight[..., None, None])
        layer.bias.copy_(bias)
    return layer


register(
    Refit("crt", KANG, retrain),
    Refit("lws", KANG, learn_scales),
    Refit("tau-norm", KANG, normalise),
    Refit("ncm", f"nearest class mean; {KANG}", nearest_mean),
    Refit("smote", "Chawla et al. 2002, in feature space", smote),
)
