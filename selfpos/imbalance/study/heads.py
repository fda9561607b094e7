"""Second stages: other heads on the fixed trunks of trained networks.

They are trained further (two-phase), trained from scratch (cRT, SMOTE), rescaled (LWS, τ-norm), or class
means (NCM).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from selfpos.imbalance.study.data import Images
from selfpos.imbalance.study.networks import (
    CosineHead,
    Dense,
    Network,
    classifier_of,
    initialise,
    seeded,
    widen,
)
from selfpos.imbalance.study.recipe import TrainingSettings
from selfpos.imbalance.study.sampling import Ints, Streams, class_balanced_stream, stream
from selfpos.imbalance.study.scoring import TAUS, class_recalls
from selfpos.imbalance.study.trainer import CHUNK, Batches, Sample, fit, image_batches, join_networks, predict

NEIGHBOURS = 5  # of SMOTE
Heads = list[nn.Sequential]


@dataclass
class Stage:
    """S trained networks and their imbalanced samples, in the same order."""

    networks: Sequence[Network]
    samples: Sequence[Sample]
    images: Images
    settings: TrainingSettings
    rate: float

    @property
    def device(self) -> torch.device:
        return next(self.networks[0].parameters()).device

    def fit_heads(self, heads: Sequence[nn.Module], streams: Streams, rate: float = 1.0) -> None:
        """Train `heads` on the fixed trunks by `streams` of positions; `rate` is a factor of the base rate.

        Features are computed once, except behind a trunk with dropout, which runs in every step, as in Caffe.
        """
        if not any(isinstance(layer, nn.Dropout) for layer in self.networks[0].trunk.modules()):
            labels = [sample.labels for sample in self.samples]
            self.fit_on_features(heads, self.features, labels, streams, rate)
            return
        batches = image_batches(self.images, self.samples, streams, self.device)
        trunks = [network.trunk.requires_grad_(False) for network in self.networks]
        self._fit([nn.Sequential(*parts) for parts in zip(trunks, heads, strict=True)], batches, rate)
        for trunk in trunks:
            trunk.requires_grad_(True)

    def fit_on_features(
        self,
        heads: Sequence[nn.Module],
        features: Sequence[Tensor],
        labels: Sequence[Ints],
        streams: Streams,
        rate: float = 1.0,
    ) -> None:
        """Train `heads` on features[s] (n, F, h, w) with labels[s] (n,); `streams` draw positions of them."""
        targets = [torch.from_numpy(values).to(self.device) for values in labels]

        def batches() -> Batches:
            while True:
                at = [torch.from_numpy(next(positions)).to(self.device) for positions in streams]
                yield (
                    torch.stack([maps[i] for maps, i in zip(features, at, strict=True)], dim=1),
                    torch.stack([values[i] for values, i in zip(targets, at, strict=True)], dim=1),
                )

        self._fit(heads, batches(), rate)

    def _fit(self, modules: Sequence[nn.Module], batches: Batches, rate: float) -> None:
        for module in modules:
            module.to(self.device)
        counts, length = np.stack([sample.counts for sample in self.samples]), self.settings.second_stage
        fit(modules, batches, counts, self.settings, rate=rate * self.rate, iterations=length)

    @cached_property
    def features(self) -> list[Tensor]:
        """The trunk's output on each network's examples, (n, F, h, w) per network."""
        trunk = widen([network.trunk for network in self.networks]).eval()
        index = np.stack([sample.index for sample in self.samples], axis=1)
        parts = []
        with torch.no_grad():
            for start in range(0, len(index), CHUNK):
                images = self.images.batch(index[start : start + CHUNK], None).to(self.device)
                maps = trunk(join_networks(images))
                parts.append(maps.reshape(len(maps), len(self.networks), -1, *maps.shape[2:]))
        return list(torch.cat(parts).unbind(dim=1))

    @property
    def pooled_features(self) -> list[Tensor]:
        """The features averaged over the map, (n, F) per network."""
        return [features.mean(dim=(2, 3)) for features in self.features]

    def balanced_streams(self) -> Streams:
        size = self.settings.batch_size
        return [class_balanced_stream(s.positions, s.labels, size, s.seed) for s in self.samples]


def two_phase(stage: Stage) -> Heads:
    """The heads, trained further on the imbalanced data, with the base rate times `second_rate`."""
    heads = [copy.deepcopy(network.head) for network in stage.networks]
    size = stage.settings.batch_size
    streams = [stream(sample.positions, size, sample.seed + 1000) for sample in stage.samples]
    stage.fit_heads(heads, streams, rate=stage.settings.second_rate)
    return heads


def retrain(stage: Stage) -> Heads:
    """cRT: new heads, trained on class-balanced batches."""
    heads = [copy.deepcopy(network.head) for network in stage.networks]
    for head, sample in zip(heads, stage.samples, strict=True):
        with seeded(sample.seed + 2000):
            initialise(head)
    stage.fit_heads(heads, stage.balanced_streams())
    return heads


class Scaled(nn.Module):
    """Logits times one learned factor per class, (B, groups·K, …)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(classes))

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.weight[:, None, None]


def learn_scales(stage: Stage) -> Heads:
    """LWS: only a factor of each class's logit is trained, on class-balanced batches."""
    heads = []
    for network in stage.networks:
        head = copy.deepcopy(network.head).requires_grad_(False)
        heads.append(nn.Sequential(*head, Scaled(network.classifier.weight.shape[0])))
    stage.fit_heads(heads, stage.balanced_streams())
    return heads


def normalise(stage: Stage) -> Heads:
    """τ-norm: w_i / ‖w_i‖^τ without biases; τ by balanced accuracy on validation, else 1."""
    validation = np.stack([sample.validation for sample in stage.samples], axis=1)
    if not len(validation):
        return [normalised_head(network, 1.0) for network in stage.networks]
    candidates = {str(tau): [normalised_head(network, tau) for network in stage.networks] for tau in TAUS}
    log_probs = predict(stage.networks, candidates, stage.images, validation)
    chosen = []
    for index, labels in enumerate(stage.images.labels[validation].T):
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


class Normalise(nn.Module):
    """Features (B, groups·F, 1, 1) scaled to unit length, network by network."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 1

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x.reshape(x.shape[0], self.groups, -1), dim=2).reshape(x.shape)


def nearest_mean(stage: Stage) -> Heads:
    """NCM: −‖f − m_c‖² for the mean m_c of each class's unit-length features, less |f|², equal for all."""
    heads = []
    for features, sample in zip(stage.pooled_features, stage.samples, strict=True):
        directions = nn.functional.normalize(features, dim=1)
        labels = torch.from_numpy(sample.labels).to(directions.device)
        means = torch.stack([directions[labels == label].mean(dim=0) for label in range(len(sample.counts))])
        layer = _linear(2 * means, -means.square().sum(dim=1))
        heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), Normalise(), layer))
    return heads


def smote(stage: Stage) -> Heads:
    """A linear head on pooled features that SMOTE balanced: x + u (x_nn − x) for one of 5 neighbours x_nn."""
    size = stage.settings.batch_size
    pools, labels, streams, heads = [], [], [], []
    for features, sample in zip(stage.pooled_features, stage.samples, strict=True):
        x, y = _interpolated(features.cpu().numpy(), sample.labels, sample.counts, sample.seed)
        pools.append(torch.from_numpy(x[..., None, None].astype(np.float32)).to(features.device))
        labels.append(np.asarray(y, dtype=np.int64))
        streams.append(stream(np.arange(len(y)), size, sample.seed))
        generator = torch.Generator().manual_seed(sample.seed + 3000)
        bound = (3 / features.shape[1]) ** 0.5
        weight = (torch.rand(len(sample.counts), features.shape[1], generator=generator) * 2 - 1) * bound
        heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), _linear(weight, torch.zeros(len(weight)))))
    stage.fit_on_features(heads, pools, labels, streams)
    return heads


def _interpolated(x: np.ndarray, y: Ints, counts: Ints, seed: int) -> tuple[np.ndarray, Ints]:
    """Features (n, F) and labels (n,), balanced by SMOTE with at most as many neighbours as a class has.

    The example of a class with a single one is copied first.
    """
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
