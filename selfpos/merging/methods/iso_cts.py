from __future__ import annotations

from typing import Annotated

from selfpos.merging.matrices import is_matrix, leading, mean, nearest_orthogonal, total
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.stream import Array, Chunk, array_module


@kernel(reference="https://arxiv.org/abs/2502.04959", weighting="none", grain="matrix", holds=(14, 0))
def iso_cts(
    chunk: Chunk,
    *,
    common: Annotated[float, "k/r, share of the directions that are common to all tasks", Limits(0, 1)] = 0.8,
    scale: Annotated[float, "α, the factor of the merged vector"] = 1.0,
) -> Array:
    """Isotropic merging in common and task-specific subspaces: as iso-c, with room kept for what only one task needs.

    Per matrix of rank r: U_c, W_c are the k leading singular directions of Σ V_i; each residual V_i − U_c U_cᵀ V_i adds its s = (r − k)/N
    leading ones. U, W: all of them, made orthonormal (Procrustes); V = α σ̄ U Wᵀ, σ̄ the mean of their singular values. Embeddings, norms and
    biases take α times the mean.

    Source: Marczak et al. 2025, arXiv 2502.04959, algorithm 2 (Iso-CTS).
    Prefer it to iso-c for many or very different tasks.
    """
    if not is_matrix(chunk):
        return mean(chunk.vectors) * scale
    xp = array_module(chunk.base)
    rank, count = min(chunk.base.shape), len(chunk.vectors)
    own = int(rank * (1 - common) + 1e-9) // count
    shared = rank - own * count
    parts = [leading(xp, total(chunk.vectors), shared)]
    if own:
        common_left = parts[0][0]
        parts += [
            leading(xp, vector - common_left @ (common_left.T @ vector), own) for vector in chunk.vectors
        ]
    left = nearest_orthogonal(xp, xp.concatenate([part[0] for part in parts], axis=1))
    right = nearest_orthogonal(xp, xp.concatenate([part[2] for part in parts], axis=0))
    return left @ right * (scale * float(xp.concatenate([part[1] for part in parts]).mean()))
