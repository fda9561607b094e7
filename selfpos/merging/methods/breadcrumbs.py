from __future__ import annotations

from typing import Annotated

from selfpos.merging.checks import check_sum
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.sparse import band, band_survey, weighted_sum
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2312.06795", survey=band_survey, checks=(check_sum,))
def breadcrumbs(
    chunk: Chunk,
    *,
    density: Annotated[tuple[float, ...], "share of each tensor's entries kept", Limits(0, 1)] = (0.9,),
    gamma: Annotated[tuple[float, ...], "γ, share of the largest entries removed", Limits(0, 1)] = (0.01,),
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
    normalize: Annotated[bool, "divide by the sum of the weights"] = False,
) -> Array:
    """Model Breadcrumbs: remove the largest and the smallest entries of every tensor, add up the rest.

    V = λ Σ w_i (m_i ⊙ V_i); per tensor m_i leaves out the γ largest |entries| and then all but the `density` next largest. Absent weights are 1.

    One more pass finds the limits, exactly. Source: Davari and Belilovsky 2024, arXiv 2312.06795, section 3.
    Prefer it to task arithmetic when single outlying entries do harm.
    """
    return weighted_sum(band(chunk), chunk.weights, normalize) * scale
