"""What a second stage has to work with: trained networks whose trunks stay, their samples, and ways to train
new heads on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfpos.imbalance.study.images import Images
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.recipe import TrainingSettings
from selfpos.imbalance.study.trainer import Batches, Sample, fit, image_batches, join_networks, predict
from selfpos.imbalance.study.wide import widen

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Stage:
    """S trained networks and their imbalanced samples, in the same order."""

    networks: Sequence[Network]
    samples: Sequence[Sample]
    images: Images
    settings: TrainingSettings
    rate: float
    tick: Callable[[], None] | None = None
    _features: list[Tensor] | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        return next(self.networks[0].parameters()).device

    @property
    def has_validation(self) -> bool:
        return all(len(sample.validation) for sample in self.samples)

    def fit_heads(
        self, heads: Sequence[nn.Module], streams: Sequence[Iterator[Ints]], rate: float = 1.0
    ) -> None:
        """Train `heads` on the frozen trunks; `streams` draw positions of each sample.

        `rate` is a factor of the first stage's base rate.

        Features are computed once where the trunk gives the same ones each time; a trunk with dropout runs in
        every step, as in Caffe.
        """
        if not any(isinstance(layer, nn.Dropout) for layer in self.networks[0].trunk.modules()):
            self.fit_heads_on(
                heads, self.features(), [sample.labels for sample in self.samples], streams, rate
            )
            return
        whole = [
            Network(network.trunk.requires_grad_(False), head)  # type: ignore[arg-type]
            for network, head in zip(self.networks, heads, strict=True)
        ]
        batches = image_batches(self.images, self.samples, streams, self.device, self.samples[0].seed)
        self._fit(whole, batches, rate)
        for network in self.networks:
            network.trunk.requires_grad_(True)

    def fit_heads_on(
        self,
        heads: Sequence[nn.Module],
        pools: Sequence[Tensor],
        labels: Sequence[Ints],
        streams: Sequence[Iterator[Ints]],
        rate: float = 1.0,
    ) -> None:
        """Train `heads` on given features: pools[s] (n, F, h, w) with labels[s] (n,); `streams` draw
        positions into them.
        """
        targets = [torch.from_numpy(own).to(self.device) for own in labels]

        def batches() -> Batches:
            while True:
                at = [torch.from_numpy(next(stream)).to(self.device) for stream in streams]
                yield (
                    torch.stack([pool[i] for pool, i in zip(pools, at, strict=True)], dim=1),
                    torch.stack([own[i] for own, i in zip(targets, at, strict=True)], dim=1),
                )

        self._fit(heads, batches(), rate)

    def _fit(self, modules: Sequence[nn.Module], batches: Batches, rate: float) -> None:
        counts = np.stack([sample.counts for sample in self.samples])
        for module in modules:
            module.to(self.device)
        fit(
            modules, batches, counts, self.settings, rate=self.rate * rate, iterations=self.settings.second_stage, optimizer=self.settings.optimizer, tick=self.tick
        )  # fmt: skip

    def features(self) -> list[Tensor]:
        """The trunk's output on each network's own examples, (n, F, h, w) per network; computed once."""
        if self._features is None:
            count = len(self.networks)
            trunk = widen([network.trunk for network in self.networks]).eval()
            index = np.stack([sample.index for sample in self.samples], axis=1)
            parts = []
            with torch.no_grad():
                for start in range(0, len(index), 500):
                    out = trunk(
                        join_networks(self.images.batch(index[start : start + 500], None).to(self.device))
                    )
                    parts.append(out.reshape(len(out), count, -1, *out.shape[2:]))
            joined = torch.cat(parts)
            self._features = [joined[:, place] for place in range(count)]
        return self._features

    def pooled_features(self) -> list[Tensor]:
        """The same averaged over the map, (n, F) per network."""
        return [features.mean(dim=(2, 3)) for features in self.features()]

    def predict_validation(self, heads: Mapping[str, Sequence[nn.Module]]) -> dict[str, Floats]:
        """Log-probabilities of sets of heads on each network's validation images, (S, n, K)."""
        return predict(
            self.networks,
            heads,
            self.images,
            np.stack([sample.validation for sample in self.samples], axis=1),
        )

    def validation_labels(self) -> list[Ints]:
        """Labels of each network's validation images, (n,) per network."""
        return [self.images.labels[sample.validation] for sample in self.samples]
