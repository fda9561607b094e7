"""Task Singular Vectors."""

from __future__ import annotations

from selfpos.merging.maths.matrices import is_matrix, leading, mean, nearest_orthogonal
from selfpos.merging.method import kernel
from selfpos.merging.stream import Array, Chunk, array_module


@kernel(reference="https://arxiv.org/abs/2412.00081", weighting="none", chunking="matrix", holds=(13, 0))
def tsv_m(chunk: Chunk, *, scale: float = 1.0) -> Array:
    """Task Singular Vectors: join the leading singular directions of all vectors, made orthogonal to each
    other.

    Per matrix of rank r: the r/N leading singular triples of each V_i are put side by side in U, Σ, Vᵀ; U⊥
    and V⊥ are the orthonormal matrices nearest to U and V (Procrustes); V = α U⊥ Σ V⊥ᵀ. Embeddings, norms and
    biases take α times the mean.

    Args:
        scale: α, the factor of the merged vector.

    Source: Gargiulo et al. 2025, arXiv 2412.00081, algorithm 1 (TSV-Merge).
    Prefer it for many vectors of different tasks, whose leading directions would overlap in a sum.
    """
    if not is_matrix(chunk):
        return mean(chunk.vectors) * scale
    xp = array_module(chunk.base)
    rank = max(1, min(chunk.base.shape) // len(chunk.vectors))
    parts = [leading(xp, vector, rank) for vector in chunk.vectors]
    left = nearest_orthogonal(xp, xp.concatenate([part[0] for part in parts], axis=1))
    right = nearest_orthogonal(xp, xp.concatenate([part[2] for part in parts], axis=0))
    values = xp.concatenate([part[1] for part in parts])
    return (left * values) @ right * scale
