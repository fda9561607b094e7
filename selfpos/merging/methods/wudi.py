"""WUDI."""

from __future__ import annotations

import math
from typing import Annotated, Any

from selfpos.merging.maths.matrices import as_double, as_single, is_matrix, mean, total
from selfpos.merging.method import NotNegative, kernel
from selfpos.merging.stream import Array, Chunk, array_module


@kernel(reference="https://arxiv.org/abs/2503.08099", weighting="none", chunking="matrix", holds=(9, 2))
def wudi(
    chunk: Chunk,
    *,
    steps: Annotated[int, (0, math.inf)] = 300,
    learning_rate: NotNegative = 1e-5,
    scale: float = 1.0,
) -> Array:
    """WUDI: the merged vector that interferes least with each vector on the inputs which that vector itself
    spans.

    Per matrix: minimise Σ ‖(V − V_i) V_iᵀ‖² / ‖V_i‖² over V, from V = Σ V_i, by Adam; the rows of V_i stand
    for its task's inputs. With `steps` 0 the minimum is taken in closed form (what no V_i sees stays as in Σ
    V_i). Embeddings, norms and biases take λ times the mean.

    Args:
        steps: steps of Adam; 0 for the exact minimum.
        learning_rate: of Adam.
        scale: λ, the factor of the merged vector.

    Source: Cheng et al. 2025, arXiv 2503.08099, equation 9 (WUDI-Merging).
    Prefer it for different tasks when minutes of computing do not matter; it needs no data.
    """
    if not is_matrix(chunk):
        return mean(chunk.vectors) * scale
    xp = array_module(chunk.base)
    exact = as_single if steps else as_double  # the exact solution divides by squares
    start = total(map(exact, chunk.vectors))
    # With V = Σ V_i + X the gradient is 2 (X · inputs + offset): a step costs one product for any number of
    # vectors.
    inputs, offset = start.T @ start * 0.0, start * 0.0
    for vector in map(exact, chunk.vectors):
        energy = float((vector * vector).sum())
        if energy > 0:
            inputs += vector.T @ vector / energy
            offset += ((start - vector) @ vector.T) @ vector / energy
    if steps:
        moved = adam(xp, inputs, offset, steps, learning_rate)
    else:
        moved = -offset @ xp.linalg.pinv(inputs, rcond=1e-10, hermitian=True)
    return as_single((start + moved) * scale)


def adam(xp: Any, inputs: Array, offset: Array, steps: int, rate: float) -> Array:
    """Adam (β 0.9, 0.999; ε 1e-8) from X = 0 on the quadratic with gradient 2 (X · inputs + offset)."""
    point, first, second = offset * 0.0, offset * 0.0, offset * 0.0
    for step in range(1, steps + 1):
        gradient = (point @ inputs + offset) * 2.0
        first = first * 0.9 + gradient * 0.1
        second = second * 0.999 + gradient * gradient * 0.001
        point -= (first / (1 - 0.9**step)) / (xp.sqrt(second / (1 - 0.999**step)) + 1e-8) * rate
    return point
