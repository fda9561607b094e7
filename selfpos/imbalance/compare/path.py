"""The path in weight space from the baseline to ROS, against sampling to a partial ratio: can one interpolation replace a search over ratios?

Both networks start from the same weights. α on the path, and the ratio, are chosen on the validation images; what is compared is the test AUC
of the two choices, seed by seed. The falsifier: when the interpolation's AUC is below that of the best ratio by more than MARGIN.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from selfpos.imbalance import metrics
from selfpos.imbalance.analysis import Interval, paired_bootstrap
from selfpos.imbalance.cell import Imbalance, Unit, train_unit
from selfpos.imbalance.networks import Network
from selfpos.imbalance.recipe import ImbalanceRecipe
from selfpos.imbalance.sources import ImageData
from selfpos.imbalance.trainer import Sample, predict

MARGIN = 0.25  # points of AUC
ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))


@dataclass(frozen=True)
class PathResult:
    """Test AUC × 100 by seed and choice, and the paired difference: interpolation minus the best partial ratio."""

    by_alpha: dict[float, list[float]]
    by_ratio: dict[float, list[float]]
    chosen_alpha: list[float]
    chosen_ratio: list[float]
    gain: Interval

    @property
    def verdict(self) -> str:
        if self.gain.low > -MARGIN:
            return "holds"
        return "does not hold" if self.gain.high < -MARGIN else "not decided"


def interpolate(start: Network, end: Network, alpha: float) -> Network:
    """(1 − α) · start + α · end, tensor by tensor; running statistics of batch normalisation are interpolated too."""
    between = copy.deepcopy(start)
    target = end.state_dict()
    between.load_state_dict({k: torch.lerp(v, target[k], alpha) if v.is_floating_point() else v for k, v in start.state_dict().items()})
    return between


def compare_path(
    imbalance: Imbalance, recipe: ImbalanceRecipe, data: ImageData, device: torch.device, tick: Callable[[], None] | None = None
) -> PathResult:
    """Train baseline, ROS and ROS to three ratios between 1 and ρ for every seed of the recipe, which must keep back validation images."""
    seeds, rate = tuple(range(recipe.seeds)), recipe.training.learning_rates[0]
    ratios = [float(ratio) for ratio in np.geomspace(1, imbalance.rho, 5)]
    names = {ratio: f"ros:{ratio:.6g}" for ratio in ratios[1:-1]} | {1.0: "ros", imbalance.rho: "baseline"}
    trained: dict[float, list[Network]] = {ratio: [] for ratio in names}
    samples: list[Sample] = []
    test = np.empty(0, dtype=np.int64)
    for seed in seeds:
        for ratio, name in names.items():
            found = train_unit(Unit(imbalance, name, (), rate, (seed,)), recipe, data, device, tick)
            trained[ratio] += found.networks
        samples += found.samples
        test = found.scoring.test

    def auc(networks: Sequence[Network]) -> tuple[list[float], list[float]]:
        """Of every seed's network: validation and test AUC × 100."""
        validation: list[float] = []
        tested: list[float] = []
        for network, sample in zip(networks, samples, strict=True):
            for images, index, into in ((data.train, sample.validation, validation), (data.test, test, tested)):
                scores = predict([network], {"": [network.head]}, images, index)[""][0]
                into.append(100 * float(metrics.one_vs_rest_auc(scores, images.labels[index]).mean()))
        return validation, tested

    ends = list(zip(trained[imbalance.rho], trained[1.0], strict=True))
    along = {alpha: auc([interpolate(start, end, alpha) for start, end in ends]) for alpha in ALPHAS}
    partial = {ratio: auc(trained[ratio]) for ratio in sorted(names)}
    alphas = [max(ALPHAS, key=lambda alpha: along[alpha][0][s]) for s in seeds]
    chosen = [max(partial, key=lambda ratio: partial[ratio][0][s]) for s in seeds]
    gains = [along[alphas[s]][1][s] - partial[chosen[s]][1][s] for s in seeds]
    return PathResult({a: v[1] for a, v in along.items()}, {r: v[1] for r, v in partial.items()}, alphas, chosen, paired_bootstrap(gains))
