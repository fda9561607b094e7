"""Methods in the feature space of the baseline's trunk: nearest class mean, and a head trained on SMOTE's interpolated features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from selfpos.imbalance.study.methods.registry import Refit, register
from selfpos.imbalance.study.sampling import need_samplers, stream
from selfpos.imbalance.study.second_stage import Stage
from selfpos.imbalance.study.wide import Dense


def nearest_mean(stage: Stage) -> list[nn.Sequential]:
    """NCM: −‖f − m_c‖² for the mean m_c of each class's unit-length features; linear in f once |f|², equal for all classes, is left out."""
    heads = []
    for features, sample in zip(stage.pooled_features(), stage.samples, strict=True):
        directions = nn.functional.normalize(features, dim=1)
        means = torch.stack(
            [
                directions[torch.from_numpy(sample.labels == c).to(directions.device)].mean(dim=0)
                for c in range(len(sample.counts))
            ]
        )
        heads.append(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), Normalise(), _linear(2 * means, -means.square().sum(dim=1))
            )
        )
    return heads


class Normalise(nn.Module):
    """Features (B, groups·F, 1, 1) scaled to unit length, network by network."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 1

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x.reshape(x.shape[0], self.groups, -1), dim=2).reshape(x.shape)


def smote(stage: Stage) -> list[nn.Sequential]:
    """A linear head trained on pooled features that SMOTE balanced: x + u (x_nn − x) between a minority example and one of 5 neighbours.

    A class with fewer than 6 examples gets as many neighbours as it has; a class with a single one is replicated.
    """
    need_samplers()
    from imblearn.over_sampling import SMOTE

    pools, labels = [], []
    for features, sample in zip(stage.pooled_features(), stage.samples, strict=True):
        x, y = features.cpu().numpy(), sample.labels
        singles = np.flatnonzero(sample.counts[y] == 1)
        x, y = np.concatenate([x, x[singles]]), np.concatenate([y, y[singles]])
        for neighbours in sorted({min(5, int(n) - 1) for n in np.bincount(y)}):
            # One pass per number of neighbours: imbalanced-learn has one k for all classes.
            counts = np.bincount(y)
            strategy = {
                int(c): int(counts.max())
                for c in range(len(counts))
                if min(5, counts[c] - 1) == neighbours and counts[c] < counts.max()
            }
            if strategy:
                x, y = SMOTE(
                    sampling_strategy=strategy, k_neighbors=neighbours, random_state=sample.seed
                ).fit_resample(x, y)
        pools.append(torch.from_numpy(x[..., None, None].astype(np.float32)).to(features.device))
        labels.append(np.asarray(y, dtype=np.int64))
    heads = []
    for features, sample in zip(pools, stage.samples, strict=True):
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


def _linear(weight: Tensor, bias: Tensor) -> Dense:
    layer = Dense(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight[..., None, None])
        layer.bias.copy_(bias)
    return layer


register(
    Refit(
        "ncm",
        "nearest class mean; Kang et al. 2020, arXiv 1910.09217, section 4",
        parent="baseline",
        refit=nearest_mean,
    )
)
register(Refit("smote", "Chawla et al. 2002, in feature space", parent="baseline", refit=smote))
