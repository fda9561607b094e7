"""Settings that no method can work with though each is within its limits: known before anything is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selfpos.errors import SelfposError
from selfpos.merging.rules import Settings

CANCELLED = 1e-8
"""Weights whose sum is smaller than this cannot be divided by it."""


def check_sum(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse weights that sum to 0 where they are divided by their sum: always, or with the parameter `normalize` where there is one."""
    for key in keys:
        weights = settings.weights(key)
        if settings.params(key).get("normalize", True) and abs(math.fsum(weights)) < CANCELLED:
            raise SelfposError(
                f"method {settings.method.name} divides the weights by their sum, which is 0 for {weights}; change one of them"
            )


def check_chances(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse chances density ± ε/2 that are none, or 0 where something is to be divided by them. Densities 0 and 1 need no chance."""
    for key in keys:
        params = settings.params(key)
        for density, epsilon in zip(params["density"], params["epsilon"], strict=True):
            if density in (0, 1):
                continue
            low, high = density - epsilon / 2, density + epsilon / 2
            found = f"found {density:g} ± {epsilon / 2:g}"
            if low < 0 or high > 1:
                raise SelfposError(
                    f"density ± epsilon/2 must lie between 0 and 1, {found}; make epsilon smaller"
                )
            if low == 0 and params["rescale"]:
                raise SelfposError(
                    f"density − epsilon/2 must lie above 0 where what is kept is divided by its chance, {found}; make epsilon smaller, "
                    "or set rescale to false"
                )


def check_scope(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse a density that differs between tensors where one threshold is for them all."""
    first, *others = (settings.params(key)["density"] for key in keys)
    if settings.constant("scope") == "model" and any(density != first for density in others):
        raise SelfposError(
            "the density differs between tensors, so one threshold for the whole model has no meaning; set scope to tensor"
        )
