"""An expert of the majority classes and one of the minority, merged, against oversampling and thresholding.

Merges are average and SLERP of the two vectors, and Self Positioning: gradient descent on a_1, a_2 and λ over
a probe set (Li et al., arXiv 2410.15035, section 3.3), the validation images, balanced or thinned to the
shares of the training set. A balanced probe is hidden oversampling, so thresholding's τ is tuned on it too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from selfpos.errors import SelfposError
from selfpos.imbalance.carryover.comparison import Measured, Outcome, better
from selfpos.imbalance.study import scoring
from selfpos.imbalance.study.data import ImageData
from selfpos.imbalance.study.networks import Network, seeded
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sampling import Floats, Ints, stream
from selfpos.imbalance.study.scoring import Trained
from selfpos.imbalance.study.trainer import Sample, fit, image_batches, predict
from selfpos.imbalance.study.unit import Imbalance, Unit, train_unit
from selfpos.positioning.space import chain, get_space

STEPS, RATE, PENALTY = 100, 0.05, 0.05  # of the search; μ of μ·λ is the paper's
MERGED = {probe: f"experts, Self Positioning, {probe} probe" for probe in ("balanced", "natural")}
TUNED = "thresholding, τ tuned on the balanced probe"
Vector = dict[str, Tensor]


def check_recipe(recipe: ImbalanceRecipe, path: Path) -> None:
    """Raise SelfposError when the comparison has nothing to choose on, or several learning rates."""
    if not recipe.validation:
        raise SelfposError(f"recipe {path} has no validation set to choose on; set field 'validation'")
    if (count := len(recipe.training.learning_rates)) > 1:
        raise SelfposError(
            f"recipe {recipe.name} searches {count} learning rates, and this comparison trains with one; "
            "leave one in field 'training.learning_rates'"
        )


def third(iterations: int) -> int:
    """The length of each of the three trainings behind two experts."""
    return max(iterations // 3, 1)


def iterations(length: int) -> int:
    """Iterations that a seed takes in all, where the recipe's training takes `length`."""
    return 3 * length + 3 * third(length)


@dataclass(frozen=True)
class Bench:
    """The setting, recipe, data and device of the networks."""

    imbalance: Imbalance
    recipe: ImbalanceRecipe
    data: ImageData
    device: torch.device
    tick: Callable[[], None] | None = None

    @property
    def rate(self) -> float:
        return self.recipe.training.learning_rates[0]

    def train(self, method: str, seed: int, iterations: int | None = None) -> Trained:
        """The network of `method`, trained for as many iterations as the recipe says, or `iterations`."""
        length = iterations or self.recipe.training.iterations
        training = self.recipe.training.model_copy(update={"iterations": length})
        recipe = self.recipe.model_copy(update={"training": training})
        unit = Unit(self.imbalance, method, (), self.rate, (seed,))
        with seeded(seed):  # dropout
            return train_unit(unit, recipe, self.data, self.device, self.tick)

    def train_on(self, start: Network, sample: Sample, classes: Ints, iterations: int) -> Network:
        """A copy of `start`, trained further on those examples of `sample` that are of `classes`."""
        network, training = copy.deepcopy(start), self.recipe.training
        included = np.isin(sample.labels, classes)
        part = replace(sample, index=sample.index[included], labels=sample.labels[included])
        streams = [stream(part.positions, training.batch_size, part.seed + 4000)]
        batches = image_batches(self.data.train, [part], streams, self.device)
        with seeded(part.seed):  # dropout
            counts = part.counts[None]
            fit([network], batches, counts, training, rate=self.rate, iterations=iterations, tick=self.tick)
        return network

    def experts(self, seed: int) -> tuple[Network, list[Network], Sample]:
        """A start trained on the imbalanced set, an expert of the majority and one of the minority, a third
        each.
        """
        length = third(self.recipe.training.iterations)
        trained = self.train("baseline", seed, length)
        sample, start = trained.samples[0], trained.networks[0]
        majority = np.setdiff1d(np.arange(self.data.classes), sample.minority)
        groups = (majority, sample.minority)
        return start, [self.train_on(start, sample, classes, length) for classes in groups], sample

    def predict(self, network: Network, index: Ints, *, test: bool) -> tuple[Floats, Ints]:
        """Log-probabilities (n, K) and labels of images of the test or of the training set."""
        images = self.data.test if test else self.data.train
        return predict([network], {"": [network.head]}, images, index)[""][0], images.labels[index]


def measure(bench: Bench, seed: int) -> Measured:
    """Measures on the test images, by arm."""
    trained = {name: bench.train(name, seed) for name in ("baseline", "ros", "logit-adjustment")}
    start, experts, sample = bench.experts(seed)
    vectors = [difference(expert, start) for expert in experts]
    gram = gram_of(vectors)
    natural = thinned(sample, bench.data.train.labels)
    coefficients = {
        "experts, average": [0.5, 0.5],
        "experts, SLERP": chain(torch.ones(2, dtype=torch.float64), gram).tolist(),
        MERGED["natural"]: search(bench, start, vectors, gram, natural, seed),
        MERGED["balanced"]: search(bench, start, vectors, gram, sample.validation, seed),
    }
    networks = {name: unit.networks[0] for name, unit in trained.items()}
    networks |= dict(zip(("majority expert", "minority expert"), experts, strict=True))
    networks |= {name: moved(start, vectors, values) for name, values in coefficients.items()}
    test = trained["baseline"].test
    scores = {name: bench.predict(network, test, test=True) for name, network in networks.items()}
    arms = {name: measures(*arm_scores, sample) for name, arm_scores in scores.items()}
    for name in ("baseline", "ros"):
        validation = bench.predict(networks[name], sample.validation, test=False)
        tau = scoring.best_tau(*validation, sample.counts)
        arms[f"{name} + thresholding"] = measures(*scores[name], sample, 1.0)
        arms[f"{name} + {TUNED}"] = measures(*scores[name], sample, tau)
    return {"arms": arms, "coefficients": coefficients}


def measures(log_probs: Floats, labels: Ints, sample: Sample, tau: float = 0.0) -> dict[str, float]:
    """AUC, balanced accuracy and minority recall × 100, decisions by log-probabilities − τ · log prior."""
    decision = scoring.divide_by_prior(log_probs, sample.counts, tau)
    recalls = scoring.group_recalls(decision, labels, sample.minority)
    return {
        "auc": 100 * float(scoring.one_vs_rest_auc(log_probs, labels).mean()),
        "balanced accuracy": 100 * recalls["balanced"],
        "minority recall": 100 * recalls["minority"],
    }


def thinned(sample: Sample, labels: Ints) -> Ints:
    """The validation images with the training set's shares of the classes; at least one of each."""
    chosen = []
    for label, count in enumerate(sample.counts):
        members = sample.validation[labels[sample.validation] == label]
        chosen.append(members[: max(round(len(members) * count / sample.counts.max()), 1)])
    return np.concatenate(chosen)


def search(
    bench: Bench, start: Network, vectors: list[Vector], gram: Tensor, probe: Ints, seed: int
) -> list[float]:
    """The coefficients of the two vectors by Self Positioning on the training images `probe`."""
    start = copy.deepcopy(start).eval()  # without dropout, and with the statistics of its training
    space = get_space("spherical")
    rows = space.start(gram).requires_grad_()
    optimiser = torch.optim.Adam([rows], lr=RATE)
    train = bench.data.train
    batches = stream(np.arange(len(probe)), min(bench.recipe.training.batch_size, len(probe)), seed + 5000)
    for _ in range(STEPS):
        index = probe[next(batches)]
        coefficients = space.coefficients(rows, gram[None])[0].float()
        weights = moved_weights(start, vectors, coefficients)
        images = train.batch(index, None).to(bench.device)
        labels = torch.from_numpy(train.labels[index]).to(bench.device)
        loss = nn.functional.cross_entropy(torch.func.functional_call(start, weights, (images,)), labels)
        optimiser.zero_grad()
        (loss + PENALTY * space.scale(rows, gram[None]).sum()).backward()
        optimiser.step()
        with torch.no_grad():
            rows.clamp_(min=1e-3)  # the chain's a_i only make sense above zero
    return [float(x) for x in space.coefficients(rows.detach(), gram[None])[0]]


def weights_of(network: Network) -> Vector:
    """Its floating-point weights and running statistics by name."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def difference(end: Network, start: Network) -> Vector:
    """The vector of `end`: its weights minus those of `start`."""
    origin = weights_of(start)
    return {name: tensor - origin[name] for name, tensor in weights_of(end).items()}


def gram_of(vectors: list[Vector]) -> Tensor:
    """The vectors' inner products in float64."""

    def product(a: Vector, b: Vector) -> float:
        return float(sum((a[name].double() * b[name].double()).sum() for name in a))

    return torch.tensor([[product(a, b) for b in vectors] for a in vectors], dtype=torch.float64)


def moved_weights(start: Network, vectors: list[Vector], coefficients: list[float] | Tensor) -> Vector:
    return {
        name: tensor + sum(c * v[name] for c, v in zip(coefficients, vectors, strict=True))
        for name, tensor in weights_of(start).items()
    }


def moved(start: Network, vectors: list[Vector], coefficients: list[float]) -> Network:
    network = copy.deepcopy(start)
    network.load_state_dict(moved_weights(start, vectors, coefficients), strict=False)
    return network


def outcome(by_seed: list[Measured]) -> Outcome:
    """Merged experts against the rivals."""
    names, fields = list(by_seed[0]["arms"]), list(next(iter(by_seed[0]["arms"].values())))

    def of(name: str, field: str) -> list[float]:
        return [values["arms"][name][field] for values in by_seed]

    findings = []
    for probe, name in MERGED.items():
        for field in ("auc", "balanced accuracy"):
            claim = f"Self Positioning ({probe} probe) is better than ROS, {field}"
            findings.append(better(claim, of(name, field), of("ros", field)))
    field = "balanced accuracy"
    for rival in (f"baseline + {TUNED}", "logit-adjustment"):
        claim = f"Self Positioning (balanced probe) is better than {rival}, {field}"
        findings.append(better(claim, of(MERGED["balanced"], field), of(rival, field)))
    return Outcome(
        "Merged experts against oversampling and thresholding",
        "merging fails where the rival at equal draws lies within the interval",
        ["arm", *fields],
        [[name, *(f"{np.mean(of(name, field)):.2f}" for field in fields)] for name in names],
        findings,
    )
