"""What a method is, and the table of all of them.

Shapes: logits (B, S, K), targets (B, S), class counts and weights (S, K), for S networks trained side by
side.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from selfpos.errors import SelfposError, unknown
from selfpos.imbalance.study.second_stage import Stage
from selfpos.imbalance.study.trainer import Loss, Mix, cross_entropy

Ints = NDArray[np.int64]
Resample = Callable[[Ints, int, float], Ints]
"""labels, seed, target ratio → positions to train on."""


@dataclass(frozen=True)
class Method:
    """A way to train a network from its first weights. What is not given is as in the baseline."""

    name: str
    source: str
    loss: Loss = cross_entropy
    resample: Resample | None = None
    ratio: float = 1.0
    mix: Mix | None = None
    cosine_head: bool = False
    optimizer: Literal["sgd", "adamw"] | None = None  # the recipe's
    size_matched: bool = False
    with_second_stage: bool = False  # as many iterations as a first and a second stage together

    @property
    def parent(self) -> str:
        """The method that trains the networks: this one."""
        return self.name


@dataclass(frozen=True)
class Refit:
    """A second stage: the networks of the method `parent` keep their trunks and get other heads."""

    name: str
    source: str
    refit: Callable[[Stage], list[nn.Sequential]]
    parent: str = "baseline"


METHODS: dict[str, Method | Refit] = {}


def register(*methods: Method | Refit) -> None:
    """Add methods to the table. Raises ValueError for a name that is taken."""
    for method in methods:
        if method.name in METHODS:
            raise ValueError(f"there are two methods named {method.name}")
        METHODS[method.name] = method


def get_method(name: str) -> Method | Refit:
    """The method `name`; `ros:R` and `rus:R` sample to the ratio R. Raises SelfposError for unknown names."""
    _load()
    stem, _, ratio = name.partition(":")
    if stem not in METHODS:
        raise unknown("imbalance method", stem, METHODS)
    method = METHODS[stem]
    if not ratio:
        return method
    try:
        target = float(ratio)
    except ValueError:
        target = 0.0
    if not isinstance(method, Method) or method.resample is None or not 1 <= target < math.inf:
        raise SelfposError(
            f"method '{name}': only ros:R and rus:R take a target ratio, a number of 1 or more"
        )
    return replace(method, name=name, ratio=target)


def method_names() -> list[str]:
    """All names, in alphabetical order."""
    _load()
    return sorted(METHODS)


def _load() -> None:
    package = importlib.import_module("selfpos.imbalance.study.methods")
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
