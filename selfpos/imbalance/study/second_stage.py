"""A second stage: training of new heads on the fixed trunks of trained networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfpos.imbalance.study.images import Images
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.recipe import TrainingSettings
from selfpos.imbalance.study.trainer import Batches, Sample, fit, image_batches, join_networks
from selfpos.imbalance.study.wide import widen

Ints = NDArray[np.int64]


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

    def fit_heads(
        self, heads: Sequence[nn.Module], streams: Sequence[Iterator[Ints]], rate: float = 1.0
    ) -> None:
        """Train `heads` on the fixed trunks; `streams` draw positions of each sample.

        `rate` is a factor of the base rate. Features are computed once, except behind a trunk with dropout,
        which runs in every step, as in Caffe.
        """
        if not any(isinstance(layer, nn.Dropout) for layer in self.networks[0].trunk.modules()):
            labels = [sample.labels for sample in self.samples]
            self.fit_heads_on(heads, self.features, labels, streams, rate)
            return
        batches = image_batches(self.images, self.samples, streams, self.device, self.samples[0].seed)
        trunks = [network.trunk.requires_grad_(False) for network in self.networks]
        self._fit([nn.Sequential(*parts) for parts in zip(trunks, heads, strict=True)], batches, rate)
        for trunk in trunks:
            trunk.requires_grad_(True)

    def fit_heads_on(
        self,
        heads: Sequence[nn.Module],
        features: Sequence[Tensor],
        labels: Sequence[Ints],
        streams: Sequence[Iterator[Ints]],
        rate: float = 1.0,
    ) -> None:
        """Train `heads` on features[s] (n, F, h, w) with labels[s] (n,); `streams` draw positions of them."""
        targets = [torch.from_numpy(values).to(self.device) for values in labels]

        def batches() -> Batches:
            while True:
                at = [torch.from_numpy(next(stream)).to(self.device) for stream in streams]
                yield (
                    torch.stack([maps[i] for maps, i in zip(features, at, strict=True)], dim=1),
                    torch.stack([values[i] for values, i in zip(targets, at, strict=True)], dim=1),
                )

        self._fit(heads, batches(), rate)

    def _fit(self, modules: Sequence[nn.Module], batches: Batches, rate: float) -> None:
        for module in modules:
            module.to(self.device)
        fit(
            modules,
            batches,
            np.stack([sample.counts for sample in self.samples]),
            self.settings,
            rate=self.rate * rate,
            iterations=self.settings.second_stage,
            optimizer=self.settings.optimizer,
        )

    @cached_property
    def features(self) -> list[Tensor]:
        """The trunk's output on each network's examples, (n, F, h, w) per network."""
        trunk = widen([network.trunk for network in self.networks]).eval()
        index = np.stack([sample.index for sample in self.samples], axis=1)
        parts = []
        with torch.no_grad():
            for start in range(0, len(index), 500):
                images = self.images.batch(index[start : start + 500], None).to(self.device)
                maps = trunk(join_networks(images))
                parts.append(maps.reshape(len(maps), len(self.networks), -1, *maps.shape[2:]))
        return list(torch.cat(parts).unbind(dim=1))

    @property
    def pooled_features(self) -> list[Tensor]:
        """The features averaged over the map, (n, F) per network."""
        return [features.mean(dim=(2, 3)) for features in self.features]
