"""Networks of one seed for the comparisons: trained whole, or as experts of a start, and scored on validation
and test.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfpos.errors import SelfposError
from selfpos.imbalance.study import metrics
from selfpos.imbalance.study.cell import Imbalance, Trained, Unit, new_network, train_unit
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sampling import stream
from selfpos.imbalance.study.sources import ImageData
from selfpos.imbalance.study.trainer import Sample, fit, image_batches, predict

Floats = NDArray[np.float64]
Point = Mapping[str, Tensor]


def only_rate(recipe: ImbalanceRecipe) -> float:
    """The learning rate of a recipe that has a single one.

    Raises SelfposError for more: comparisons do not search rates.
    """
    rate, *others = recipe.training.learning_rates
    if others:
        raise SelfposError(
            f"recipe {recipe.name} searches {1 + len(others)} learning rates, and this comparison trains "
            "with one; leave one in field 'training.learning_rates'"
        )
    return rate


@dataclass(frozen=True)
class Bench:
    """Where the networks of a comparison are trained and scored: a point of the grid, a recipe, data and a
    device.
    """

    imbalance: Imbalance
    recipe: ImbalanceRecipe
    data: ImageData
    device: torch.device
    tick: Callable[[], None] | None = None

    def lasting(self, iterations: int) -> Bench:
        """The same with another length of training."""
        training = self.recipe.training.model_copy(update={"iterations": iterations})
        return replace(self, recipe=self.recipe.model_copy(update={"training": training}))

    def train(self, method: str, seed: int) -> Trained:
        """One network by one method."""
        unit = Unit(self.imbalance, method, (), only_rate(self.recipe), (seed,))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # of dropout
            return train_unit(unit, self.recipe, self.data, self.device, self.tick)

    def untrained(self, seed: int) -> Network:
        """The network that `train` starts from."""
        return new_network(self.recipe, self.data, seed).to(self.device)

    def train_on(self, start: Network, sample: Sample, labels: NDArray[np.int64], iterations: int) -> Network:
        """A copy of `start`, trained on with those examples of `sample` that are of the classes `labels`."""
        network, training = copy.deepcopy(start), self.recipe.training
        at = np.isin(sample.labels, labels)
        part = replace(sample, index=sample.index[at], labels=sample.labels[at])
        batches = image_batches(
            self.data.train,
            [part],
            [stream(part.positions, training.batch_size, part.seed + 4000)],
            self.device,
            part.seed,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(part.seed)  # of dropout
            fit(
                [network], batches, part.counts[None], training, rate=only_rate(self.recipe), iterations=iterations,
                optimizer=training.optimizer, tick=self.tick,
            )  # fmt: skip
        return network

    def experts(self, seed: int) -> tuple[Network, list[Network], Sample]:
        """A start trained on the imbalanced set, one expert of the majority classes and one of the minority;
        a third of the iterations each.
        """
        third = max(self.recipe.training.iterations // 3, 1)
        found = self.lasting(third).train("baseline", seed)
        sample, start = found.samples[0], found.networks[0]
        majority = np.setdiff1d(np.arange(self.data.classes), sample.minority)
        return (
            start,
            [self.train_on(start, sample, classes, third) for classes in (majority, sample.minority)],
            sample,
        )

    def predict(
        self, network: Network, index: NDArray[np.int64], *, test: bool
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Log-probabilities (n, K) and labels of images of the test or of the training set."""
        images = self.data.test if test else self.data.train
        return predict([network], {"": [network.head]}, images, index)[""][0], images.labels[index]


def measures(
    log_probs: Floats, labels: NDArray[np.int64], sample: Sample, tau: float = 0.0
) -> dict[str, float]:
    """AUC, balanced accuracy and minority recall × 100, decisions by log-probabilities − τ · log prior."""
    found = metrics.score(
        log_probs, metrics.divide_by_prior(log_probs, sample.counts, tau), labels, sample.minority
    )
    return {
        "auc": 100 * found.auc,
        "balanced accuracy": 100 * found.balanced_accuracy,
        "minority recall": 100 * found.minority,
    }


def point_of(network: Network) -> dict[str, Tensor]:
    """Its floating-point weights and running statistics by name."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def difference(end: Network, start: Network) -> dict[str, Tensor]:
    """The vector of `end`: its weights minus those of `start`."""
    origin = point_of(start)
    return {name: tensor - origin[name] for name, tensor in point_of(end).items()}


def inner(first: Point, second: Point) -> float:
    """The inner product of two vectors, in float64."""
    return float(sum((first[name].double() * second[name].double()).sum() for name in first))


def moved(start: Network, vectors: list[dict[str, Tensor]], coefficients: list[float]) -> Network:
    """start + Σ c_i V_i as a network."""
    network = copy.deepcopy(start)
    place = point_of(start)
    target = {
        name: tensor + sum(c * v[name] for c, v in zip(coefficients, vectors, strict=True))
        for name, tensor in place.items()
    }
    network.load_state_dict(target, strict=False)
    return network
