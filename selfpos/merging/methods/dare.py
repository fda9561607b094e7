"""DARE, with the plain sum or with TIES' election of signs."""

from __future__ import annotations

from selfpos.merging.maths.sparse import drop_at_random, elect_and_join, weighted_sum
from selfpos.merging.method import PerVector, kernel
from selfpos.merging.settings import check_sum
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2311.03099", random=True, checks=(check_sum,))
def dare_linear(
    chunk: Chunk,
    *,
    density: PerVector = (0.5,),
    scale: float = 1.0,
    rescale: bool = True,
    normalize: bool = False,
) -> Array:
    """DARE: drop entries of every vector at random, rescale the rest, add up.

    V = λ Σ w_i (m_i ⊙ V_i) / (1 − p), m_i random masks that keep an entry with chance 1 − p. Absent weights
    are 1.

    Args:
        density: 1 − p, the chance of each entry to be kept.
        scale: λ, the factor of the merged vector.
        rescale: divide what is kept by the density.
        normalize: divide by the sum of the weights.

    Source: Yu et al. 2024, arXiv 2311.03099, section 3.2, with task arithmetic.
    Prefer it to task arithmetic for vectors of many small entries that interfere with each other.
    """
    return weighted_sum(drop_at_random(chunk, density, rescale), chunk.weights, normalize) * scale


@kernel(reference="https://arxiv.org/abs/2311.03099", random=True)
def dare_ties(
    chunk: Chunk,
    *,
    density: PerVector = (0.5,),
    scale: float = 1.0,
    rescale: bool = True,
    normalize: bool = True,
) -> Array:
    """DARE, then TIES' election of signs: drop at random, rescale, join what agrees.

    V_i' = (m_i ⊙ V_i) / (1 − p) as in dare-linear; then sign election and joining of the V_i' as in ties.

    Args:
        density: 1 − p, the chance of each entry to be kept.
        scale: λ, the factor of the merged vector.
        rescale: divide what is kept by the density.
        normalize: divide by the sum of the weights that agree (else their plain weighted sum).

    Source: Yu et al. 2024, arXiv 2311.03099, section 3.2; Yadav et al. 2023, arXiv 2306.01708.
    Prefer it to ties when the small entries are not noise.
    """
    return elect_and_join(drop_at_random(chunk, density, rescale), chunk.weights, normalize) * scale
