"""What all comparisons share: networks of one seed, measurements kept seed by seed, and verdicts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfpos.console import log, log_to, markdown_table
from selfpos.errors import SelfposError
from selfpos.imbalance.study import scoring
from selfpos.imbalance.study.analysis import Interval, paired_bootstrap
from selfpos.imbalance.study.data import ImageData
from selfpos.imbalance.study.networks import Network, seeded
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sampling import Floats, Ints, stream
from selfpos.imbalance.study.scoring import Trained
from selfpos.imbalance.study.trainer import Sample, fit, image_batches, predict
from selfpos.imbalance.study.unit import Imbalance, Unit, new_network, train_unit
from selfpos.storage.atomic import locked, write_text
from selfpos.storage.manifest import read_json

Vector = dict[str, Tensor]
Measured = dict[str, Any]  # what was measured for one seed, as JSON holds it
FEWEST = 5  # seeds: of n resampled pairs an interval covers the median with 1 − 2^(1−n) at most
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Finding:
    """A claim, the result in words, and the verdict; `gain` is the paired difference over seeds, if any."""

    claim: str
    value: str
    verdict: str
    gain: Interval | None = None

    @property
    def row(self) -> list[str]:
        return [self.claim, self.value, str(self.gain.n) if self.gain else "", self.verdict]


def finding(
    claim: str, differences: list[float], least: float = 0.0, strict: bool = False, p: float | None = None
) -> Finding:
    """The claim holds where the interval of the paired differences lies above `least`.

    `strict`: an undecided result counts as refuted. `p`, if any, must be below SIGNIFICANT for it to hold.
    """
    gain = paired_bootstrap(differences)
    verdict = "not decided"
    if gain.n >= FEWEST and gain.low > least and (p is None or p < SIGNIFICANT):
        verdict = "holds"
    elif gain.n >= FEWEST and gain.low <= least and (strict or gain.high < least):
        verdict = "does not hold"
    return Finding(claim, str(gain) + ("" if p is None else f"; p {p:.3f}"), verdict, gain)


def compared(
    claim: str, first: list[float], second: list[float], least: float = 0.0, strict: bool = False
) -> Finding:
    """The finding on first − second, paired by seed."""
    return finding(claim, [a - b for a, b in zip(first, second, strict=True)], least, strict)


@dataclass(frozen=True)
class Outcome:
    """A comparison's table and findings; `falsifier` is what would speak against it."""

    title: str
    falsifier: str
    header: list[str]
    rows: list[list[str]]
    findings: list[Finding]

    def write(self, file: Path, settings: Measured) -> None:
        """Table, findings and falsifier as Markdown beside the JSON file of measurements."""
        # The rules with spaces are those of the published files.
        table = markdown_table(self.header, self.rows, rules=[" --- "] * len(self.header))
        header = ["claim", "paired difference [95 %, bootstrap over seeds]", "seeds", "verdict"]
        rows = [finding.row for finding in self.findings]
        findings = markdown_table(header, rows, rules=[" --- "] * len(header))
        shown = "; ".join(f"{key} {value}" for key, value in settings.items() if not isinstance(value, dict))
        parts = [f"# {self.title}", f"Falsifier: {self.falsifier}", table, findings, shown]
        write_text(file.with_suffix(".md"), "\n\n".join(parts) + "\n")


def over_seeds(
    file: Path, settings: Measured, seeds: int, measure: Callable[[int], Measured]
) -> list[Measured]:
    """What `measure` returns for seeds 0, 1, …; seeds that `file` has are not measured again."""
    wanted = json.loads(json.dumps(settings))
    journal = file.with_suffix(".log")
    with log_to(journal), locked(journal):
        content = _read_same(file, wanted)
        for seed in missing_seeds(file, seeds):
            values = json.loads(json.dumps(measure(seed)))
            content = _read_same(file, wanted)  # again: the lock does not reach a process on another machine
            content["seeds"][str(seed)] = values
            write_text(file, json.dumps(content, indent=1) + "\n")
            log.info("seed %d measured", seed)
    return [content["seeds"][str(seed)] for seed in range(seeds)]


def missing_seeds(file: Path, seeds: int) -> list[int]:
    """Which of the seeds 0, 1, … `file` does not have."""
    measured = _read(file)["seeds"] if file.exists() else {}
    return [seed for seed in range(seeds) if str(seed) not in measured]


def _read_same(file: Path, settings: Measured) -> Measured:
    """What `file` holds, which must have these settings; no seeds where there is no file."""
    if not file.exists():
        return {"settings": settings, "seeds": {}}
    content = _read(file)
    stored = {"data": settings.get("data")} | content["settings"]  # of version 0.1: without data
    if changed := [key for key in settings if stored.get(key) != settings[key]]:
        raise SelfposError(f"{file} was made with other settings ({', '.join(changed)}); change --out")
    return content


def _read(file: Path) -> Measured:
    content = read_json(file)
    if not all(isinstance(content.get(key), dict) for key in ("settings", "seeds")):
        raise SelfposError(f"{file} holds no results of `selfpos imbalance compare`; name another by --out")
    return content


def mean(values: list[float], digits: int = 2) -> str:
    return f"{np.mean(values):.{digits}f}"


def chosen(by_seed: list[Measured], kind: str) -> tuple[list[str], list[float]]:
    """Of every seed the candidate that is best on validation, and its measure on test."""
    best = [max(values[kind].items(), key=lambda item: item[1][0]) for values in by_seed]
    return [name for name, _ in best], [test for _, (_, test) in best]


def third(iterations: int) -> int:
    """The length of each of the three trainings of `Bench.experts`."""
    return max(iterations // 3, 1)


def check_recipe(recipe: ImbalanceRecipe, path: Path) -> None:
    """Raise SelfposError when the comparisons of networks have nothing to choose on, or several rates."""
    if not recipe.validation:
        raise SelfposError(f"recipe {path} has no validation set to choose on; set field 'validation'")
    if (count := len(recipe.training.learning_rates)) > 1:
        raise SelfposError(
            f"recipe {recipe.name} searches {count} learning rates, and this comparison trains with one; "
            "leave one in field 'training.learning_rates'"
        )


@dataclass(frozen=True)
class Bench:
    """The setting, recipe, data and device of a comparison's networks."""

    imbalance: Imbalance
    recipe: ImbalanceRecipe
    data: ImageData
    device: torch.device
    tick: Callable[[], None] | None = None

    @property
    def rate(self) -> float:
        """The learning rate of the recipe; `check_recipe` has seen that there is one."""
        return self.recipe.training.learning_rates[0]

    def with_iterations(self, iterations: int) -> Bench:
        training = self.recipe.training.model_copy(update={"iterations": iterations})
        return replace(self, recipe=self.recipe.model_copy(update={"training": training}))

    def train(self, method: str, seed: int) -> Trained:
        unit = Unit(self.imbalance, method, (), self.rate, (seed,))
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
        trained = self.with_iterations(length).train("baseline", seed)
        sample, start = trained.samples[0], trained.networks[0]
        majority = np.setdiff1d(np.arange(self.data.classes), sample.minority)
        groups = (majority, sample.minority)
        return start, [self.train_on(start, sample, classes, length) for classes in groups], sample

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
    decision = scoring.divide_by_prior(log_probs, sample.counts, tau)
    recalls = scoring.group_recalls(decision, labels, sample.minority)
    return {
        "auc": 100 * float(scoring.one_vs_rest_auc(log_probs, labels).mean()),
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


def gram_of(vectors: Sequence[Vector]) -> Tensor:
    def product(a: Vector, b: Vector) -> float:
        return float(sum((a[name].double() * b[name].double()).sum() for name in a))

    return torch.tensor([[product(a, b) for b in vectors] for a in vectors], dtype=torch.float64)


def lengths(gram: Tensor) -> Floats:
    """The L2 norms of the vectors with these inner products."""
    return np.array([product**0.5 for product in gram.diagonal().tolist()])


def moved_weights(origin: Vector, vectors: list[Vector], coefficients: list[float] | Tensor) -> Vector:
    return {
        name: tensor + sum(c * v[name] for c, v in zip(coefficients, vectors, strict=True))
        for name, tensor in origin.items()
    }


def moved(start: Network, vectors: list[Vector], coefficients: list[float]) -> Network:
    network = copy.deepcopy(start)
    network.load_state_dict(moved_weights(weights_of(start), vectors, coefficients), strict=False)
    return network
