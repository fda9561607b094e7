"""Model Breadcrumbs, with the plain sum or with TIES' election of signs."""

from __future__ import annotations

from selfpos.merging.maths.sparse import band, band_limits, elect_and_join, weighted_sum
from selfpos.merging.method import PerVector, kernel
from selfpos.merging.settings import check_sum
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2312.06795", statistics_pass=band_limits, checks=(check_sum,))
def breadcrumbs(
    chunk: Chunk,
    *,
    density: PerVector = (0.9,),
    gamma: PerVector = (0.01,),
    scale: float = 1.0,
    normalize: bool = False,
) -> Array:
    """Model Breadcrumbs: remove the largest and the smallest entries of every tensor, add up the rest.

    V = λ Σ w_i (m_i ⊙ V_i); per tensor m_i removes the γ largest |entries| and then all but the `density`
    next largest. Absent weights are 1.

    Args:
        density: share of each tensor's entries kept.
        gamma: γ, share of the largest entries removed.
        scale: λ, the factor of the merged vector.
        normalize: divide by the sum of the weights.

    One more pass finds the limits, exactly. Source: Davari and Belilovsky 2024, arXiv 2312.06795, section 3.
    Prefer it to task arithmetic when single outlying entries do harm.
    """
    return weighted_sum(band(chunk), chunk.weights, normalize) * scale


@kernel(reference="https://arxiv.org/abs/2312.06795", statistics_pass=band_limits)
def breadcrumbs_ties(
    chunk: Chunk,
    *,
    density: PerVector = (0.9,),
    gamma: PerVector = (0.01,),
    scale: float = 1.0,
    normalize: bool = True,
) -> Array:
    """Model Breadcrumbs with TIES' election of signs.

    V_i' = m_i ⊙ V_i as in breadcrumbs; then sign election and joining of the V_i' as in ties.

    Args:
        density: share of each tensor's entries kept.
        gamma: γ, share of the largest entries removed.
        scale: λ, the factor of the merged vector.
        normalize: divide by the sum of the weights that agree (else their plain weighted sum).

    Source: Davari and Belilovsky 2024, arXiv 2312.06795; Yadav et al. 2023, arXiv 2306.01708.
    Prefer it to ties when single outlying entries do harm.
    """
    return elect_and_join(band(chunk), chunk.weights, normalize) * scale
