"""One unit of a study: the networks of some seeds, trained by one method on one imbalance, with their second
stages and decision rules scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selfpos.imbalance.study import profiles
from selfpos.imbalance.study.methods.registry import Method, Refit, get_method
from selfpos.imbalance.study.networks import Network, build, use_cosine_head
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sampling import stream
from selfpos.imbalance.study.scoring import Scoring
from selfpos.imbalance.study.second_stage import Stage
from selfpos.imbalance.study.sources import ImageData
from selfpos.imbalance.study.trainer import Sample, Watch, fit, image_batches

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Imbalance:
    """A point of the grid."""

    profile: profiles.Profile
    rho: float
    mu: float | None
    minority: profiles.Minority

    def __str__(self) -> str:
        return profiles.place_of(self.profile, self.rho, self.mu)


@dataclass(frozen=True)
class Unit:
    """What is trained, and recorded, at once: a method and its second stages on one imbalance with one base
    rate, for some seeds.
    """

    imbalance: Imbalance
    method: str
    refits: tuple[str, ...]
    rate: float
    seeds: tuple[int, ...]

    def result_keys(self) -> set[tuple[Any, ...]]:
        """What identifies the results of this unit: one key per method and seed."""
        place = self.imbalance
        names = (self.method, *self.refits)
        return {
            (place.profile, place.rho, place.mu, str(place.minority), name, self.rate, seed)
            for name in names
            for seed in self.seeds
        }

    def __str__(self) -> str:
        return f"{self.imbalance} {self.method} seeds {self.seeds[0]}-{self.seeds[-1]}"


def class_counts(
    available: Ints, imbalance: Imbalance, recipe: ImbalanceRecipe, seed: int, *, size_matched: bool = False
) -> tuple[Ints, Ints]:
    """How many examples of every class the training set of `seed` takes, and the labels of its minority, from
    `available` (K,) of each.

    `size_matched`: as many examples in all, but balanced. Raises SelfposError for an imbalance that the
    number of classes rules out.
    """
    classes = len(available)
    sizes = profiles.class_sizes(imbalance.profile, classes, recipe.n_max, imbalance.rho, imbalance.mu)
    # Classes without n_max images can only be small ones, as in the paper's ImageNet sets.
    scarce = np.flatnonzero(available - recipe.validation < recipe.n_max)
    order = profiles.class_order(imbalance.minority, classes, seed, scarce)
    counts = profiles.sizes_by_class(sizes, order)
    if size_matched:
        counts = np.full(classes, max(round(counts.sum() / classes), 1), dtype=np.int64)
    return counts, order[: profiles.minority_count(classes, imbalance.mu)]


def draw_sample(
    labels: Ints,
    classes: int,
    imbalance: Imbalance,
    recipe: ImbalanceRecipe,
    seed: int,
    *,
    size_matched: bool = False,
) -> Sample:
    """The imbalanced training set of `seed`, its validation set and its minority.

    `size_matched`: as many examples in all, but balanced.
    """
    available = np.bincount(labels, minlength=classes)
    counts, minority = class_counts(available, imbalance, recipe, seed, size_matched=size_matched)
    permutations = profiles.class_permutations(labels, classes, seed)
    index = profiles.subset(permutations, counts, reserve=recipe.validation)
    return Sample(
        seed,
        index,
        labels[index],
        counts,
        minority,
        profiles.validation_subset(permutations, recipe.validation),
    )


def scored_positions(labels: Ints, classes: int, recipe: ImbalanceRecipe) -> Ints:
    """Positions of the test images that count: all, or as many of each class as of the rarest, or at most
    `test_limit` of each.
    """
    counts = np.bincount(labels, minlength=classes)
    limits = np.full(classes, counts.min()) if recipe.test == "balanced" else counts
    limits = np.minimum(limits, recipe.test_limit or counts.max())
    return np.sort(profiles.subset(profiles.class_permutations(labels, classes, 0), limits))


@dataclass
class Trained:
    """The networks of a unit behind their training, and what they were trained on."""

    networks: list[Network]
    samples: list[Sample]
    positions: list[Ints]  # of each sample, as its method drew from them
    scoring: Scoring
    iterations: int


def new_network(recipe: ImbalanceRecipe, data: ImageData, seed: int) -> Network:
    """The network of `seed` before any training."""
    return data.network(seed) if data.network else build(recipe.network, data.classes, seed)


def train_unit(
    unit: Unit,
    recipe: ImbalanceRecipe,
    data: ImageData,
    device: torch.device,
    tick: Callable[[], None] | None = None,
) -> Trained:
    """Draw the unit's samples, build its networks and train them."""
    method = get_method(unit.method)
    if not isinstance(method, Method):
        raise ValueError(f"{unit.method} is a second stage of {method.parent}, which its unit must train")
    labels, classes = data.train.labels, data.classes
    samples = [
        draw_sample(labels, classes, unit.imbalance, recipe, seed, size_matched=method.size_matched)
        for seed in unit.seeds
    ]
    networks = [new_network(recipe, data, seed) for seed in unit.seeds]
    for network, seed in zip(networks, unit.seeds, strict=True):
        if method.cosine_head:
            use_cosine_head(network, seed)
        network.to(device)
    positions = [
        s.positions if method.resample is None else method.resample(s.labels, s.seed, method.ratio)
        for s in samples
    ]
    test = scored_positions(data.test.labels, classes, recipe)
    scoring = Scoring(networks, samples, positions, data, test, recipe.train_scored)
    iterations = recipe.training.iterations + (
        recipe.training.second_stage if method.with_second_stage else 0
    )
    streams = [
        stream(own, recipe.training.batch_size, seed) for own, seed in zip(positions, unit.seeds, strict=True)
    ]
    fit(
        networks,
        image_batches(data.train, samples, streams, device, unit.seeds[0]),
        np.stack([sample.counts for sample in samples]),
        recipe.training,
        rate=unit.rate,
        iterations=iterations,
        loss=method.loss,
        mix=method.mix,
        mix_seeds=unit.seeds,
        optimizer=method.optimizer or recipe.training.optimizer,
        tick=tick,
        watch=Watch(recipe.curve_every, scoring.look) if recipe.curve_every else None,
    )
    return Trained(networks, samples, positions, scoring, iterations)


def run_unit(
    unit: Unit,
    recipe: ImbalanceRecipe,
    data: ImageData,
    device: torch.device,
    tick: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """Train and score the unit; one record per seed, method and decision rule.

    The same unit gives the same records, on one machine.
    """
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(
            unit.seeds[0]
        )  # of dropout, which with the augmentation of image files depends on who trains beside
        trained = train_unit(unit, recipe, data, device, tick)
        heads: dict[str, Sequence[nn.Module]] = {unit.method: [network.head for network in trained.networks]}
        stage = Stage(trained.networks, trained.samples, data.train, recipe.training, unit.rate)
        for name in unit.refits:
            refit = get_method(name)
            if not isinstance(refit, Refit):
                raise ValueError(f"{name} is no second stage")
            heads[name] = [head.to(device) for head in refit.refit(stage)]
    effective = [
        np.bincount(sample.labels[own], minlength=data.classes)
        for sample, own in zip(trained.samples, trained.positions, strict=True)
    ]
    records = trained.scoring.records(heads, effective)
    seconds = (time.perf_counter() - start) / len(trained.networks)
    place = unit.imbalance
    common = {
        "profile": place.profile, "rho": place.rho, "mu": place.mu, "minority_rule": str(place.minority), "rate": unit.rate,
        "iterations": trained.iterations, "seconds": seconds,
    }  # fmt: skip
    return [common | record for record in records]
