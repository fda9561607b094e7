from __future__ import annotations

from typing import Annotated

from selfpos.merging.checks import check_chances
from selfpos.merging.consensus import elect_and_join
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.sparse import drop_by_rank
from selfpos.merging.stream import Array, Chunk


@kernel(reference="https://arxiv.org/abs/2406.11617", grain="row", random=True, checks=(check_chances,))
def della_ties(
    chunk: Chunk,
    *,
    density: Annotated[tuple[float, ...], "the mean chance of an entry to be kept", Limits(0, 1)] = (0.5,),
    epsilon: Annotated[
        tuple[float, ...], "ε, by how much the largest entry's chance exceeds the smallest's", Limits(0, 1)
    ] = (0.2,),
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
    rescale: Annotated[bool, "divide what is kept by its chance"] = True,
    normalize: Annotated[
        bool, "divide by the sum of the weights that agree (else their plain weighted sum)"
    ] = True,
) -> Array:
    """DELLA with TIES' election of signs: drop small entries more often, join what agrees.

    V_i' as in della-linear; then sign election and joining of the V_i' as in ties.

    Source: Deep et al. 2024, arXiv 2406.11617, section 3.
    Prefer it to dare-ties at low densities.
    """
    return elect_and_join(drop_by_rank(chunk, density, epsilon, rescale), chunk.weights, normalize) * scale
