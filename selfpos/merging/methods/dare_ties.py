from __future__ import annotations

from typing import Annotated

from selfpos.merging.consensus import elect_and_join
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.sparse import drop_at_random
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2311.03099", random=True)
def dare_ties(
    chunk: Chunk,
    *,
    density: Annotated[tuple[float, ...], "1 − p, the chance of each entry to be kept", Limits(0, 1)] = (
        0.5,
    ),
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
    rescale: Annotated[bool, "divide what is kept by the density"] = True,
    normalize: Annotated[
        bool, "divide by the sum of the weights that agree (else their plain weighted sum)"
    ] = True,
) -> Array:
    """DARE, then TIES' election of signs: drop at random, rescale, join what agrees.

    V_i' = (m_i ⊙ V_i) / (1 − p) as in dare-linear; then sign election and joining of the V_i' as in ties.

    Source: Yu et al. 2024, arXiv 2311.03099, section 3.2; Yadav et al. 2023, arXiv 2306.01708.
    Prefer it to ties when the small entries are not noise.
    """
    return elect_and_join(drop_at_random(chunk, density, rescale), chunk.weights, normalize) * scale
