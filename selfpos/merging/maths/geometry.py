"""Interpolation on spheres by inner products alone: every point is a combination of the inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from selfpos.merging.stream import Chunk, Stream
from selfpos.vectors.gram import products

PARALLEL = 1e-7
"""Below this sine two directions count as parallel, and the limit, linear interpolation, is taken."""

OPPOSITE = 1e-6
"""Directions whose weighted sum is shorter than this cancel out: no single point lies between them."""


def inner_products(stream: Stream, *, with_base: bool = False) -> dict[str, np.ndarray]:
    """Per tensor: inner products in float64 of [V_1..V_N], (N, N), or of [θ0, V_1..V_N]."""

    def measure(chunks: Iterator[Chunk]) -> np.ndarray:
        rows = ([chunk.base, *chunk.vectors] if with_base else chunk.vectors for chunk in chunks)
        return np.sum([products(row) for row in rows], axis=0)

    count = len(stream.vectors) + with_base
    return stream.totals(measure, (count, count))


def input_products(gram: np.ndarray, space: str) -> np.ndarray:
    """Inner products (N, N) of the V_i, or the θ_i (`space` "models"), from those of [θ0, V_1..V_N]."""
    return of_models(gram)[1:, 1:] if space == "models" else gram[1:, 1:]


def output_coefficients(point: np.ndarray, space: str) -> list[float]:
    """Coefficients of [θ0, V_1..V_N] for the point Σ point_i V_i, or Σ point_i θ_i (`space` "models")."""
    return over_base(np.concatenate([[0.0], point])) if space == "models" else [1.0, *map(float, point)]


def of_models(gram: np.ndarray) -> np.ndarray:
    """Inner products (N + 1, N + 1) of the models [θ0, θ_1..θ_N] from those of [θ0, V_1..V_N]."""
    basis = np.eye(gram.shape[0])
    basis[1:, 0] = 1.0
    return basis @ gram @ basis.T


def over_base(coefficients: np.ndarray) -> list[float]:
    """Coefficients of [θ0, V_1..V_N] from those of the models [θ0, θ_1..θ_N]."""
    return [float(coefficients.sum()), *map(float, coefficients[1:])]


def slerp_shares(
    first: float, second: float, inner: float, t: float, linear_above: float = 1.0
) -> tuple[float, float]:
    """The factors of two points (squared norms `first`, `second`; product `inner`) at the share t between.

    Linear interpolation where a point is zero, the two are parallel, or |cosine| exceeds `linear_above`.
    """
    lengths = math.sqrt(max(first, 0.0) * max(second, 0.0))
    cosine = min(1.0, max(-1.0, inner / lengths)) if lengths > 0 else 1.0
    angle = math.acos(cosine)
    sine = math.sin(angle)
    if sine < PARALLEL or abs(cosine) > linear_above:
        return 1 - t, t
    return math.sin((1 - t) * angle) / sine, math.sin(t * angle) / sine


def normalized(weights: list[float]) -> np.ndarray:
    """Weights divided by their sum."""
    values = np.array(weights, np.float64)
    return values / values.sum()


def unit_scales(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms (N,) and their reciprocals, 0 for a zero vector."""
    norms = np.sqrt(np.clip(np.diag(gram), 0, None))
    return norms, np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)


def length(point: np.ndarray, gram: np.ndarray) -> float:
    """The norm of Σ point_i · input_i."""
    return math.sqrt(max(float(point @ gram @ point), 0.0))
