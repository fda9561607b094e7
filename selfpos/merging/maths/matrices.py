"""Linear algebra on whole weight matrices, for numpy arrays and torch tensors alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from selfpos.merging.stream import Array, Chunk

NO_DIRECTION = 1e-5  # singular values below this share of the largest are noise of float32


def weighted_sum(vectors: Iterable[Array], weights: Sequence[float], normalize: bool = False) -> Array:
    """Σ w_i V_i with one vector in memory at a time, divided by Σ w_i with `normalize`."""
    total: Any = None
    for vector, weight in zip(vectors, weights, strict=True):
        if total is None:
            total = vector * weight
        else:
            total += vector * weight
    return total / sum(weights) if normalize else total


def total(vectors: Sequence[Array]) -> Array:
    """The sum of the vectors."""
    return weighted_sum(vectors, [1.0] * len(vectors))


def mean(vectors: Sequence[Array]) -> Array:
    """The plain mean: what the spectral methods do with tensors that are not linear maps."""
    return total(vectors) / len(vectors)


def weighted_mean(vectors: Sequence[Array], weights: list[float]) -> Array:
    """Σ w_i V_i / Σ w_i."""
    return weighted_sum(vectors, [weight / sum(weights) for weight in weights])


def is_matrix(chunk: Chunk) -> bool:
    """Whether the chunk is the whole matrix of a linear map, not a flat range of another tensor."""
    return len(chunk.base.shape) == 2


def thin_svd(xp: Any, matrix: Array) -> tuple[Array, Array, Array]:
    """U (m, r), σ (r,), Vᵀ (r, n) with r = min(m, n)."""
    return xp.linalg.svd(matrix, full_matrices=False)


def leading(xp: Any, matrix: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` leading singular triples, copied, so that the memory of the others is freed."""
    left, values, right = thin_svd(xp, matrix)
    return left[:, :count] * 1.0, values[:count] * 1.0, right[:count] * 1.0


def join(xp: Any, parts: Sequence[tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    """Singular triples side by side, U and V made orthonormal (Procrustes): U⊥, all σ, V⊥ᵀ."""
    left = nearest_orthogonal(xp, xp.concatenate([part[0] for part in parts], axis=1))
    right = nearest_orthogonal(xp, xp.concatenate([part[2] for part in parts], axis=0))
    return left, xp.concatenate([part[1] for part in parts]), right


def leading_of_each(
    xp: Any, vectors: Sequence[Array], weights: Sequence[float]
) -> list[tuple[Array, Array, Array]]:
    """The r/N leading singular triples of each of N matrices of rank r, the values times the weight.

    Directions along which a vector does not move are left out: they are arbitrary, and would turn those of
    the others.
    """
    parts = []
    for vector, weight in zip(vectors, weights, strict=True):
        left, values, right = leading(xp, vector, max(1, min(vector.shape) // len(vectors)))
        count = int((values > NO_DIRECTION * values[0]).sum())
        parts.append((left[:, :count], values[:count] * weight, right[:count]))
    return parts


def apart(xp: Any, vectors: Sequence[Array], ridge: float) -> Iterator[Array]:
    """Each vector's share of the sum that interferes least with any of them.

    V = Σ w_i V_i (G_i + λ) (Σ G_j + λ)⁻¹ with G_i = V_iᵀ V_i / ‖V_i‖² minimises
    Σ tr (V − w_i V_i) G_i (V − w_i V_i)ᵀ + λ ‖V − Σ w_i V_i‖²; λ is `ridge` times the mean eigenvalue of
    Σ G_j. The shares do not depend on the w_i. In float64, each when it is asked for.
    """
    inputs: Array = 0.0
    for vector in map(as_double, vectors):
        inputs = inputs + _inputs(vector)
    pull = ridge * float(xp.trace(inputs)) / len(inputs)
    if pull == 0:  # no vector moves
        yield from map(as_double, vectors)
        return
    diagonal(xp, inputs)[:] += pull
    inverse = xp.linalg.inv(inputs)
    for vector in map(as_double, vectors):
        yield (vector @ _inputs(vector) + vector * pull) @ inverse


def _inputs(vector: Array) -> Array:
    """VᵀV / ‖V‖², which stands for the inputs of the vector's task; zeros of a vector that does not move."""
    product = vector.T @ vector
    energy = float((vector * vector).sum())
    return product / energy if energy else product


def nearest_orthogonal(xp: Any, matrix: Array) -> Array:
    """The nearest matrix with orthonormal columns or rows: P Qᵀ of the SVD P Σ Qᵀ (Procrustes)."""
    left, _, right = thin_svd(xp, matrix)
    return left @ right


def diagonal(xp: Any, matrix: Array) -> Array:
    """The diagonal of a square matrix, writable."""
    return xp.einsum("ii->i", matrix)


def as_double(matrix: Array) -> Array:
    """In float64."""
    return matrix.astype(np.float64) if isinstance(matrix, np.ndarray) else matrix.double()


def as_single(matrix: Array) -> Array:
    """In float32."""
    return matrix.astype(np.float32) if isinstance(matrix, np.ndarray) else matrix.float()
