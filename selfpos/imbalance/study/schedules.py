"""Caffe's learning-rate policies: the rate as a multiple of the base rate, by iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def inverse(gamma: float = 1e-4, power: float = 0.75) -> Schedule:
    """Policy "inv": (1 + gamma · t)^−power."""
    return lambda t: (1 + gamma * t) ** -power


def steps(drops: Sequence[int], factor: float = 0.1) -> Schedule:
    """Policy "multistep": times `factor` at each iteration of `drops`."""
    return lambda t: factor ** sum(t >= drop for drop in drops)


def polynomial(iterations: int, power: float = 1.0) -> Schedule:
    """Policy "poly": (1 − t / iterations)^power; power 1 falls in a straight line to zero."""
    return lambda t: (1 - t / iterations) ** power


def constant() -> Schedule:
    """Policy "fixed": always 1."""
    return lambda t: 1.0
