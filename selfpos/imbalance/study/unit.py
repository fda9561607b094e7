"""One unit of a study: the networks of some seeds, trained by one method on one imbalance, and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from selfpos.errors import SelfposError
from selfpos.extras import need_extra
from selfpos.imbalance.study import sampling
from selfpos.imbalance.study.data import ImageData
from selfpos.imbalance.study.heads import Stage
from selfpos.imbalance.study.methods import get_method
from selfpos.imbalance.study.networks import Network, build, seeded, use_cosine_head
from selfpos.imbalance.study.recipe import ImbalanceRecipe, TrainingSettings
from selfpos.imbalance.study.sampling import Ints
from selfpos.imbalance.study.scoring import Trained
from selfpos.imbalance.study.trainer import Sample, fit, image_batches

Tick = Callable[[], None]


@dataclass(frozen=True)
class Imbalance:
    """A setting of the grid."""

    profile: sampling.Profile
    rho: float
    mu: float | None

    def __str__(self) -> str:
        return sampling.setting_name(self.profile, self.rho, self.mu)


@dataclass(frozen=True)
class Unit:
    """What is trained and recorded at once: a method and its second stages at one setting, for some seeds."""

    imbalance: Imbalance
    method: str
    refits: tuple[str, ...]
    rate: float
    seeds: tuple[int, ...]

    def result_keys(self) -> set[tuple[Any, ...]]:
        """What identifies the results of this unit: one key per method and seed."""
        setting = astuple(self.imbalance)
        names = (self.method, *self.refits)
        return {(*setting, name, self.rate, seed) for name in names for seed in self.seeds}

    def iterations(self, training: TrainingSettings) -> int:
        """How long each of the networks is trained, without second stages of other methods."""
        two_stages = get_method(self.method).with_second_stage
        return training.iterations + (training.second_stage if two_stages else 0)

    def __str__(self) -> str:
        return f"{self.imbalance} {self.method} seeds {self.seeds[0]}-{self.seeds[-1]}"


def class_counts(
    data: ImageData, imbalance: Imbalance, recipe: ImbalanceRecipe, seed: int, size_matched: bool
) -> tuple[Ints, Ints]:
    """Class sizes of a training set, and its minority; `size_matched`: as many in all, but balanced."""
    classes, available = data.classes, np.bincount(data.train.labels, minlength=data.classes)
    sizes = sampling.class_sizes(imbalance.profile, classes, recipe.n_max, imbalance.rho, imbalance.mu)
    # Classes without n_max images can only be small ones, as in the paper's ImageNet sets.
    scarce = np.flatnonzero(available - recipe.validation < recipe.n_max)
    order = sampling.class_order(recipe.minority, classes, seed, scarce)
    counts = sampling.sizes_by_class(sizes, order)
    if size_matched:
        counts = np.full(classes, max(round(counts.sum() / classes), 1), dtype=np.int64)
    return counts, order[: sampling.minority_count(classes, imbalance.mu)]


def draw_sample(
    data: ImageData, imbalance: Imbalance, recipe: ImbalanceRecipe, seed: int, *, size_matched: bool = False
) -> Sample:
    """The imbalanced training set of `seed`, its validation set and its minority."""
    labels = data.train.labels
    counts, minority = class_counts(data, imbalance, recipe, seed, size_matched)
    permutations = sampling.class_permutations(labels, data.classes, seed)
    index = sampling.subset(permutations, counts)
    # The last examples of each class, which no count reaches.
    validation = np.concatenate([members[len(members) - recipe.validation :] for members in permutations])
    return Sample(seed, index, labels[index], counts, minority, validation)


def scored_positions(data: ImageData, recipe: ImbalanceRecipe) -> Ints:
    """Positions of the test images that count, by the recipe's `test` and `test_limit`."""
    labels = data.test.labels
    counts = np.bincount(labels, minlength=data.classes)
    limits = np.full(data.classes, counts.min()) if recipe.test == "balanced" else counts
    limits = np.minimum(limits, recipe.test_limit or counts.max())
    return np.sort(sampling.subset(sampling.class_permutations(labels, data.classes, 0), limits))


def new_network(recipe: ImbalanceRecipe, data: ImageData, seed: int) -> Network:
    return data.network(seed) if data.network else build(recipe.network, data.classes, seed)


def train_unit(
    unit: Unit, recipe: ImbalanceRecipe, data: ImageData, device: torch.device, tick: Tick | None = None
) -> Trained:
    method, training = get_method(unit.method), recipe.training
    samples, positions, streams, networks = [], [], [], []
    for seed in unit.seeds:
        sample = draw_sample(data, unit.imbalance, recipe, seed, size_matched=method.size_matched)
        drawn = sample.positions
        if method.resample is not None:
            drawn = method.resample(sample.labels, seed, method.ratio)
        network = new_network(recipe, data, seed)
        if method.cosine_head:
            use_cosine_head(network, seed)
        samples.append(sample)
        positions.append(drawn)
        streams.append(sampling.stream(drawn, training.batch_size, seed))
        networks.append(network.to(device))
    iterations = unit.iterations(training)
    test = scored_positions(data, recipe)
    trained = Trained(networks, samples, positions, data, test, recipe.train_scored, iterations)
    fit(
        networks,
        image_batches(data.train, samples, streams, device),
        np.stack([sample.counts for sample in samples]),
        training,
        rate=unit.rate,
        iterations=iterations,
        loss=method.loss,
        mix=method.mix,
        mix_seeds=unit.seeds,
        optimizer=method.optimizer,
        tick=tick,
        watch=trained.add_curve_point,
        watch_every=recipe.curve_every,
    )
    return trained


def run_unit(
    unit: Unit, recipe: ImbalanceRecipe, data: ImageData, device: torch.device, tick: Tick | None = None
) -> list[dict[str, Any]]:
    """Train and score the unit; one record per seed, method and decision rule."""
    start = time.perf_counter()
    # Dropout, like the augmentation of image files, depends on which networks train together.
    with seeded(unit.seeds[0], device):
        trained = train_unit(unit, recipe, data, device, tick)
        heads: dict[str, Sequence[nn.Module]] = {unit.method: [network.head for network in trained.networks]}
        stage = Stage(trained.networks, trained.samples, data.train, recipe.training, unit.rate)
        for name in unit.refits:
            refit = get_method(name).refit
            assert refit is not None
            heads[name] = [head.to(device) for head in refit(stage)]
    records = trained.records(heads)
    common = asdict(unit.imbalance) | {"minority_rule": recipe.minority}
    common |= {"rate": unit.rate, "iterations": trained.iterations}
    common["seconds"] = (time.perf_counter() - start) / len(trained.networks)
    return [common | record for record in records]


def check_packages(units: Iterable[Unit]) -> None:
    """Raise SelfposError where one of `units` samples by imbalanced-learn, which is not installed."""
    for unit in units:
        sampling_methods = [name for name in unit.refits if name == "smote"]
        if get_method(unit.method).resample is not None:
            sampling_methods.append(unit.method)
        for name in sampling_methods:
            need_extra("imbalance", f"method {name}")


def check_study(units: Iterable[Unit], recipe: ImbalanceRecipe, data: ImageData) -> None:
    """Raise SelfposError when one of `units` cannot be trained on `data`, or its networks not be scored."""
    _check_images(recipe, data)
    units = list(units)
    check_packages(units)
    samplings = set()
    for unit in units:
        method = get_method(unit.method)
        if method.mix is not None and recipe.network == "encoder":
            raise SelfposError(
                f"method {unit.method} mixes images; network encoder takes tokens, which cannot be mixed"
            )
        samplings |= {(unit.imbalance, seed, method.size_matched) for seed in unit.seeds}
    available = np.bincount(data.train.labels, minlength=data.classes)
    for imbalance, seed, size_matched in samplings:
        counts, _ = class_counts(data, imbalance, recipe, seed, size_matched)
        for label, (examples, count) in enumerate(zip(available, counts, strict=True)):
            if examples - recipe.validation < count:
                raise SelfposError(
                    f"{imbalance} cannot be drawn from {data.description}: class {label} has {examples} "
                    f"training examples, but needs {count} and {recipe.validation} for validation; lower "
                    "n_max or validation"
                )


def _check_images(recipe: ImbalanceRecipe, data: ImageData) -> None:
    """Raise SelfposError when the network does not take the images, or a class has no test example."""
    if data.network is None:
        image = data.train.batch(np.array([0]), None)
        try:
            with torch.no_grad():
                build(recipe.network, data.classes, 0).eval()(image)
        except RuntimeError:
            _, channels, height, width = image.shape
            raise SelfposError(
                f"network {recipe.network} does not take the images of {data.description}, {height}×{width} "
                f"with {channels} channel{'s' * (channels > 1)}"
            ) from None
    counts = np.bincount(data.test.labels, minlength=data.classes)
    if absent := [name for name, count in zip(data.class_names, counts, strict=True) if not count]:
        raise SelfposError(
            f"{data.description} has no test examples of class {', '.join(absent[:5])}, which the AUC needs"
        )
