"""Isotropic merging: equal singular values in common and task-specific subspaces."""

from __future__ import annotations

from selfpos.merging.maths.matrices import is_matrix, leading, mean, nearest_orthogonal, thin_svd, total
from selfpos.merging.method import Share, kernel
from selfpos.merging.stream import Array, Chunk, array_module


@kernel(reference="https://arxiv.org/abs/2502.04959", weighting="none", chunking="matrix", holds=(11, 0))
def iso_c(chunk: Chunk, *, scale: float = 1.0) -> Array:
    """Isotropic merging in the common subspace: the sum of the vectors with all singular values made equal.

    Per matrix: Σ V_i = U diag(σ) Wᵀ, then V = α σ̄ U Wᵀ with σ̄ the mean of σ. Embeddings, norms and biases
    take α times the mean.

    Args:
        scale: α, the factor of the merged vector.

    Source: Marczak et al. 2025, arXiv 2502.04959, algorithm 1 (Iso-C). The best α depends on the number of
    tasks (1 to 2 in the paper).
    Prefer it when a few directions, shared by the larger vectors, dominate the others.
    """
    if not is_matrix(chunk):
        return mean(chunk.vectors) * scale
    left, values, right = thin_svd(array_module(chunk.base), total(chunk.vectors))
    return left @ right * (scale * float(values.mean()))


@kernel(reference="https://arxiv.org/abs/2502.04959", weighting="none", chunking="matrix", holds=(14, 0))
def iso_cts(chunk: Chunk, *, common: Share = 0.8, scale: float = 1.0) -> Array:
    """Isotropic merging in common and task-specific subspaces: as iso-c, with room kept
    for what only one task needs.

    Per matrix of rank r: U_c, W_c are the k leading singular directions of Σ V_i; each residual V_i − U_c
    U_cᵀ V_i adds its s = (r − k)/N leading ones. U, W: all of them, made orthonormal (Procrustes); V = α σ̄ U
    Wᵀ, σ̄ the mean of their singular values. Embeddings, norms and biases take α times the mean.

    Args:
        common: k/r, share of the directions that are common to all tasks.
        scale: α, the factor of the merged vector.

    Source: Marczak et al. 2025, arXiv 2502.04959, algorithm 2 (Iso-CTS).
    Prefer it to iso-c for many or very different tasks.
    """
    if not is_matrix(chunk):
        return mean(chunk.vectors) * scale
    xp = array_module(chunk.base)
    rank, count = min(chunk.base.shape), len(chunk.vectors)
    specific = int(rank * (1 - common) + 1e-9) // count
    parts = [leading(xp, total(chunk.vectors), rank - specific * count)]
    if specific:
        shared = parts[0][0]
        residuals = (vector - shared @ (shared.T @ vector) for vector in chunk.vectors)
        parts += [leading(xp, residual, specific) for residual in residuals]
    left = nearest_orthogonal(xp, xp.concatenate([part[0] for part in parts], axis=1))
    right = nearest_orthogonal(xp, xp.concatenate([part[2] for part in parts], axis=0))
    return left @ right * (scale * float(xp.concatenate([part[1] for part in parts]).mean()))
