"""Linear algebra on whole weight matrices, shared by the spectral methods. Everything works on numpy arrays and torch tensors alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from selfpos.merging.stream import Array, Chunk


def mean(vectors: Sequence[Array]) -> Array:
    """The plain mean: what the spectral methods do with tensors that are no matrices of linear maps."""
    return total(vectors) / len(vectors)


def total(vectors: Iterable[Array]) -> Array:
    """The sum of the vectors."""
    return _sum(zip(vectors, repeat(1.0)))


def weighted_mean(vectors: Sequence[Array], weights: list[float]) -> Array:
    """Σ w_i V_i / Σ w_i."""
    return _sum(zip(vectors, (weight / sum(weights) for weight in weights), strict=True))


def _sum(terms: Iterable[tuple[Array, float]]) -> Array:
    found = None
    for vector, weight in terms:
        if found is None:
            found = vector * weight
        else:
            found += vector * weight
    return found


def is_matrix(chunk: Chunk) -> bool:
    """Whether the chunk is the whole matrix of a linear map (see stream.is_linear_map), not a flat piece of something else."""
    return len(chunk.base.shape) == 2


def thin_svd(xp: Any, matrix: Array) -> tuple[Array, Array, Array]:
    """U (m, r), σ (r,), Vᵀ (r, n) with r = min(m, n)."""
    return xp.linalg.svd(matrix, full_matrices=False)


def leading(xp: Any, matrix: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` leading singular triples, copied, so that the others are let go of."""
    left, values, right = thin_svd(xp, matrix)
    return left[:, :count] * 1.0, values[:count] * 1.0, right[:count] * 1.0


def nearest_orthogonal(xp: Any, matrix: Array) -> Array:
    """The matrix with orthonormal columns (or rows, whichever fit) nearest to `matrix`: P Qᵀ of its SVD P Σ Qᵀ (Procrustes)."""
    left, _, right = thin_svd(xp, matrix)
    return left @ right


def diagonal(xp: Any, matrix: Array) -> Array:
    """The diagonal of a square matrix, to be written to."""
    return xp.einsum("ii->i", matrix)


def as_double(matrix: Array) -> Array:
    """In float64."""
    return matrix.astype(np.float64) if isinstance(matrix, np.ndarray) else matrix.double()


def as_single(matrix: Array) -> Array:
    """In float32."""
    return matrix.astype(np.float32) if isinstance(matrix, np.ndarray) else matrix.float()
