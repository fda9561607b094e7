"""Methods on whole weight matrices: isotropic merging, Task Singular Vectors, WUDI."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from selfpos.merging.maths.matrices import (
    apart,
    as_double,
    as_single,
    is_matrix,
    join,
    leading,
    leading_of_each,
    mean,
    thin_svd,
    total,
    weighted_sum,
)
from selfpos.merging.method import NotNegative, Share, kernel
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
    left, values, right = join(xp, parts)
    return left @ right * (scale * float(values.mean()))


@kernel(reference="https://arxiv.org/abs/2412.00081", weighting="one", chunking="matrix", holds=(13, 0))
def tsv_m(chunk: Chunk, *, scale: float = 1.0, others: Literal["mean", "sum"] = "mean") -> Array:
    """Task Singular Vectors: join the leading singular directions of all vectors, made orthogonal to each
    other.

    Per matrix of rank r: the r/N leading singular triples of each V_i are put side by side in U, Σ, Vᵀ; U⊥
    and V⊥ are the orthonormal matrices nearest to U and V (Procrustes); V = α U⊥ Σ V⊥ᵀ, the singular values
    of V_i times its weight. Directions that V_i does not move along are left out. Embeddings, norms and
    biases take α times the mean of the weighted vectors.

    Args:
        scale: α, the factor of the merged vector.
        others: what embeddings, norms and biases take: `mean` as in the paper, or `sum`, as self-positioning
            has it, for whose coefficients a vector is one length in all tensors.

    Source: Gargiulo et al. 2025, arXiv 2412.00081, algorithm 1 (TSV-Merge).
    Prefer it for many vectors of different tasks, whose leading directions would overlap in a sum.
    """
    if not is_matrix(chunk):
        return _others(chunk, others) * scale
    xp = array_module(chunk.base)
    left, values, right = join(xp, leading_of_each(xp, chunk.vectors, chunk.weights))
    return (left * values) @ right * scale


@kernel(reference="https://arxiv.org/abs/2503.08099", weighting="one", chunking="matrix", holds=(9, 2))
def wudi(
    chunk: Chunk,
    *,
    steps: Annotated[int, (0, math.inf)] = 300,
    learning_rate: NotNegative = 1e-5,
    ridge: NotNegative = 0.0,
    scale: float = 1.0,
    others: Literal["mean", "sum"] = "mean",
) -> Array:
    """WUDI: the merged vector that interferes least with each vector on the inputs which that vector itself
    spans.

    Per matrix: minimise Σ ‖(V − w_i V_i) V_iᵀ‖² / ‖V_i‖² over V, from V = Σ w_i V_i, by Adam; the rows of V_i
    stand for its task's inputs. With `steps` 0 the minimum is taken in closed form (what no V_i sees stays as
    in the sum), with `ridge` the minimum with μ ‖V − Σ w_i V_i‖² added. Embeddings, norms and biases take λ
    times the mean of the weighted vectors.

    Args:
        steps: steps of Adam; 0 for the exact minimum.
        learning_rate: of Adam.
        ridge: μ, in mean eigenvalues of Σ V_iᵀ V_i / ‖V_i‖²; above 0 no steps are made.
        scale: λ, the factor of the merged vector.
        others: what embeddings, norms and biases take: `mean`, or `sum`, as self-positioning has it.

    Source: Cheng et al. 2025, arXiv 2503.08099, equation 9 (WUDI-Merging); weights and ridge are not theirs.
    Prefer it for different tasks when minutes of computing do not matter; it needs no data.
    """
    if not is_matrix(chunk):
        return _others(chunk, others) * scale
    xp = array_module(chunk.base)
    if ridge:
        return as_single(weighted_sum(apart(xp, chunk.vectors, ridge), chunk.weights) * scale)
    exact = as_single if steps else as_double  # the exact solution divides by squares
    start = weighted_sum((exact(vector) for vector in chunk.vectors), chunk.weights)
    # With V = Σ w_i V_i + X the gradient is 2 (X · inputs + offset): a step costs one product, however many
    # vectors there are.
    inputs, offset = start.T @ start * 0.0, start * 0.0
    for vector, weight in zip(map(exact, chunk.vectors), chunk.weights, strict=True):
        energy = float((vector * vector).sum())
        if energy > 0:
            inputs += vector.T @ vector / energy
            offset += ((start - vector * weight) @ vector.T) @ vector / energy
    if steps:
        moved = adam(xp, inputs, offset, steps, learning_rate)
    else:
        moved = -offset @ xp.linalg.pinv(inputs, rcond=1e-10, hermitian=True)
    return as_single((start + moved) * scale)


def _others(chunk: Chunk, others: str) -> Array:
    """The mean or sum of the weighted vectors, for tensors that are no matrices."""
    summed = weighted_sum(chunk.vectors, chunk.weights)
    return summed / len(chunk.vectors) if others == "mean" else summed


def adam(xp: Any, inputs: Array, offset: Array, steps: int, rate: float) -> Array:
    """Adam (β 0.9, 0.999; ε 1e-8) from X = 0 on the quadratic with gradient 2 (X · inputs + offset)."""
    point, first, second = offset * 0.0, offset * 0.0, offset * 0.0
    for step in range(1, steps + 1):
        gradient = (point @ inputs + offset) * 2.0
        first = first * 0.9 + gradient * 0.1
        second = second * 0.999 + gradient * gradient * 0.001
        point -= (first / (1 - 0.9**step)) / (xp.sqrt(second / (1 - 0.999**step)) + 1e-8) * rate
    return point
