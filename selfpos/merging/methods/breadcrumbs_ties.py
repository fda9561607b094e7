from __future__ import annotations

from typing import Annotated

from selfpos.merging.consensus import elect_and_join
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.sparse import band, band_survey
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2312.06795", survey=band_survey)
def breadcrumbs_ties(
    chunk: Chunk,
    *,
    density: Annotated[tuple[float, ...], "share of each tensor's entries kept", Limits(0, 1)] = (0.9,),
    gamma: Annotated[tuple[float, ...], "γ, share of the largest entries removed", Limits(0, 1)] = (0.01,),
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
    normalize: Annotated[
        bool, "divide by the sum of the weights that agree (else their plain weighted sum)"
    ] = True,
) -> Array:
    """Model Breadcrumbs with TIES' election of signs.

    V_i' = m_i ⊙ V_i as in breadcrumbs; then sign election and joining of the V_i' as in ties.

    Source: Davari and Belilovsky 2024, arXiv 2312.06795; Yadav et al. 2023, arXiv 2306.01708.
    Prefer it to ties when single outlying entries do harm.
    """
    return elect_and_join(band(chunk), chunk.weights, normalize) * scale
