"""Linear algebra on whole weight matrices, shared by the spectral methods. Everything works on numpy arrays and torch tensors alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from selfpos.merging.stream import Array, Chunk


def mean(vectors: list[Array]) -> Array:
    """The plain mean: what the spectral methods do with tensors that are no matrices of linear maps."""
    return total(vectors) / len(vectors)


def total(vectors: list[Array]) -> Array:
    """The sum of the vectors."""
    found = vectors[0] + 0.0
    for vector in vectors[1:]:
        found += vector
    return found


def weighted_mean(vectors: list[Array], weights: list[float]) -> Array:
    """Σ w_i V_i / Σ w_i."""
    found = vectors[0] * (weights[0] / sum(weights))
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        found += vector * (weight / sum(weights))
    return found


def is_matrix(chunk: Chunk) -> bool:
    """Whether the chunk is the whole matrix of a linear map (see stream.is_linear_map), not a flat piece of something else."""
    return len(chunk.base.shape) == 2


def thin_svd(xp: Any, matrix: Array) -> tuple[Array, Array, Array]:
    """U (m, r), σ (r,), Vᵀ (r, n) with r = min(m, n)."""
    return xp.linalg.svd(matrix, full_matrices=False)


def nearest_orthogonal(xp: Any, matrix: Array) -> Array:
    """The matrix with orthonormal columns (or rows, whichever fit) nearest to `matrix`: P Qᵀ of its SVD P Σ Qᵀ (Procrustes)."""
    left, _, right = thin_svd(xp, matrix)
    return left @ right


def as_double(matrix: Array) -> Array:
    """In float64."""
    return matrix.astype(np.float64) if isinstance(matrix, np.ndarray) else matrix.double()


def as_single(matrix: Array) -> Array:
    """In float32."""
    return matrix.astype(np.float32) if isinstance(matrix, np.ndarray) else matrix.float()
