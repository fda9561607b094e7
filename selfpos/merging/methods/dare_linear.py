from __future__ import annotations

from typing import Annotated

from selfpos.merging.checks import check_sum
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.sparse import drop_at_random, weighted_sum
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2311.03099", random=True, checks=(check_sum,))
def dare_linear(
    chunk: Chunk,
    *,
    density: Annotated[tuple[float, ...], "1 − p, the chance of each entry to be kept", Limits(0, 1)] = (
        0.5,
    ),
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
    rescale: Annotated[bool, "divide what is kept by the density"] = True,
    normalize: Annotated[bool, "divide by the sum of the weights"] = False,
) -> Array:
    """DARE: drop entries of every vector at random, rescale the rest, add up.

    V = λ Σ w_i (m_i ⊙ V_i) / (1 − p), m_i random masks that keep an entry with chance 1 − p = `density`. Absent weights are 1.

    Source: Yu et al. 2024, arXiv 2311.03099, section 3.2, with task arithmetic.
    Prefer it to task arithmetic for vectors of many small entries that get into each other's way.
    """
    return weighted_sum(drop_at_random(chunk, density, rescale), chunk.weights, normalize) * scale
