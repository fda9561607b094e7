"""Networks of one seed for the comparisons: trained on all classes, or as experts, scored and moved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from selfpos.errors import SelfposError
from selfpos.imbalance.study import metrics
from selfpos.imbalance.study.data import ImageData
from selfpos.imbalance.study.metrics import Floats
from selfpos.imbalance.study.networks import Network, seeded
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sampling import Ints, stream
from selfpos.imbalance.study.trainer import Sample, fit, image_batches, predict
from selfpos.imbalance.study.unit import Imbalance, Trained, Unit, new_network, train_unit

Vector = dict[str, Tensor]


def only_rate(recipe: ImbalanceRecipe) -> float:
    """The learning rate of the recipe; comparisons do not search several."""
    rate, *others = recipe.training.learning_rates
    if others:
        raise SelfposError(
            f"recipe {recipe.name} searches {1 + len(others)} learning rates, and this comparison trains "
            "with one; leave one in field 'training.learning_rates'"
        )
    return rate


@dataclass(frozen=True)
class Bench:
    """The setting, recipe, data and device of a comparison's networks."""

    imbalance: Imbalance
    recipe: ImbalanceRecipe
    data: ImageData
    device: torch.device
    tick: Callable[[], None] | None = None

    def with_iterations(self, iterations: int) -> Bench:
        """The same with another length of training."""
        training = self.recipe.training.model_copy(update={"iterations": iterations})
        return replace(self, recipe=self.recipe.model_copy(update={"training": training}))

    def train(self, method: str, seed: int) -> Trained:
        """One network by one method."""
        unit = Unit(self.imbalance, method, (), only_rate(self.recipe), (seed,))
        with seeded(seed):  # dropout
            return train_unit(unit, self.recipe, self.data, self.device, self.tick)

    def untrained(self, seed: int) -> Network:
        """The network that `train` starts from."""
        return new_network(self.recipe, self.data, seed).to(self.device)

    def train_on(self, start: Network, sample: Sample, classes: Ints, iterations: int) -> Network:
        """A copy of `start`, trained further on those examples of `sample` that are of `classes`."""
        network, training = copy.deepcopy(start), self.recipe.training
        included = np.isin(sample.labels, classes)
        part = replace(sample, index=sample.index[included], labels=sample.labels[included])
        streams = [stream(part.positions, training.batch_size, part.seed + 4000)]
        with seeded(part.seed):  # dropout
            fit(
                [network],
                image_batches(self.data.train, [part], streams, self.device, part.seed),
                part.counts[None],
                training,
                rate=only_rate(self.recipe),
                iterations=iterations,
                optimizer=training.optimizer,
                tick=self.tick,
            )
        return network

    def experts(self, seed: int) -> tuple[Network, list[Network], Sample]:
        """A start trained on the imbalanced set, an expert of the majority classes and one of the minority.

        Each takes a third of the iterations.
        """
        third = max(self.recipe.training.iterations // 3, 1)
        trained = self.with_iterations(third).train("baseline", seed)
        sample, start = trained.samples[0], trained.networks[0]
        majority = np.setdiff1d(np.arange(self.data.classes), sample.minority)
        groups = (majority, sample.minority)
        return start, [self.train_on(start, sample, classes, third) for classes in groups], sample

    def predict(self, network: Network, index: Ints, *, test: bool) -> tuple[Floats, Ints]:
        """Log-probabilities (n, K) and labels of images of the test or of the training set."""
        images = self.data.test if test else self.data.train
        return predict([network], {"": [network.head]}, images, index)[""][0], images.labels[index]

    def validation_and_test(self, network: Network, trained: Trained, measure: str) -> list[float]:
        """One of `measures` on the validation and on the test images of `trained`."""
        sample = trained.samples[0]
        validation = self.predict(network, sample.validation, test=False)
        test = self.predict(network, trained.test, test=True)
        return [measures(*images, sample)[measure] for images in (validation, test)]


def measures(log_probs: Floats, labels: Ints, sample: Sample, tau: float = 0.0) -> dict[str, float]:
    """AUC, balanced accuracy and minority recall × 100, decisions by log-probabilities − τ · log prior."""
    decision = metrics.divide_by_prior(log_probs, sample.counts, tau)
    recalls = metrics.group_recalls(decision, labels, sample.minority)
    return {
        "auc": 100 * float(metrics.one_vs_rest_auc(log_probs, labels).mean()),
        "balanced accuracy": 100 * recalls["balanced"],
        "minority recall": 100 * recalls["minority"],
    }


def weights_of(network: Network) -> Vector:
    """Its floating-point weights and running statistics by name."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def difference(end: Network, start: Network) -> Vector:
    """The vector of `end`: its weights minus those of `start`."""
    origin = weights_of(start)
    return {name: tensor - origin[name] for name, tensor in weights_of(end).items()}


def gram_of(vectors: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The inner products of the vectors, in float64."""
    products = [
        [float(sum((a[name].double() * b[name].double()).sum() for name in a)) for b in vectors]
        for a in vectors
    ]
    return torch.tensor(products, dtype=torch.float64)


def lengths(gram: Tensor) -> Floats:
    """The L2 norms of the vectors with these inner products."""
    return np.array([product**0.5 for product in gram.diagonal().tolist()])


def moved_weights(origin: Vector, vectors: list[Vector], coefficients: list[float] | Tensor) -> Vector:
    """origin + Σ c_i V_i."""
    return {
        name: tensor + sum(c * v[name] for c, v in zip(coefficients, vectors, strict=True))
        for name, tensor in origin.items()
    }


def moved(start: Network, vectors: list[Vector], coefficients: list[float]) -> Network:
    """start + Σ c_i V_i as a network."""
    network = copy.deepcopy(start)
    network.load_state_dict(moved_weights(weights_of(start), vectors, coefficients), strict=False)
    return network
