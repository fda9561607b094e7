"""What makes a study impossible on its data, found before anything is trained and not when the turn comes to
it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from selfpos.errors import SelfposError
from selfpos.imbalance.study.cell import Unit, class_counts
from selfpos.imbalance.study.methods.registry import Method, get_method
from selfpos.imbalance.study.networks import build
from selfpos.imbalance.study.profiles import refuse_scarcity
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sampling import need_samplers
from selfpos.imbalance.study.sources import ImageData


def check_study(units: Iterable[Unit], recipe: ImbalanceRecipe, data: ImageData) -> None:
    """Raise SelfposError when one of `units` cannot be trained on `data`, or its networks not be scored."""
    units = list(units)
    _check_sizes(data)
    if data.network is None:
        _check_network(recipe, data)
    _check_test(data)
    samplings = set()
    for unit in units:
        method = get_method(unit.method)
        if isinstance(method, Method) and method.mix is not None and recipe.network == "encoder":
            raise SelfposError(
                f"method {unit.method} mixes images; tokens of texts, which network encoder takes, cannot be "
                "mixed"
            )
        if "smote" in unit.refits or (isinstance(method, Method) and method.resample is not None):
            need_samplers()
        samplings |= {
            (unit.imbalance, seed, isinstance(method, Method) and method.size_matched) for seed in unit.seeds
        }
    available = np.bincount(data.train.labels, minlength=data.classes)
    for imbalance, seed, size_matched in samplings:
        counts, _ = class_counts(available, imbalance, recipe, seed, size_matched=size_matched)
        try:
            refuse_scarcity(available, counts, recipe.validation)
        except SelfposError as error:
            raise SelfposError(f"{imbalance} cannot be drawn from {data.description}: {error}") from None


def _check_sizes(data: ImageData) -> None:
    shapes = [tuple(images.batch(np.array([0]), None).shape[1:]) for images in (data.train, data.test)]
    if shapes[0] != shapes[1]:
        raise SelfposError(
            f"{data.description} has training images of shape {shapes[0]} and test images of shape "
            f"{shapes[1]} (channels, height, width); a network takes one size"
        )


def _check_network(recipe: ImbalanceRecipe, data: ImageData) -> None:
    image = data.train.batch(np.array([0]), None)
    try:
        with torch.no_grad():
            build(recipe.network, data.classes, 0).eval()(image)
    except RuntimeError:
        _, channels, height, width = image.shape
        raise SelfposError(
            f"network {recipe.network} does not take the images of {data.description}, {height}×{width} with "
            f"{channels} channel{'s' * (channels > 1)}"
        ) from None


def _check_test(data: ImageData) -> None:
    counts = np.bincount(data.test.labels, minlength=data.classes)
    if absent := [name for name, count in zip(data.class_names, counts, strict=True) if not count]:
        raise SelfposError(
            f"{data.description} has no test examples of class {', '.join(absent[:5])}; the AUC needs some "
            "of every class"
        )
