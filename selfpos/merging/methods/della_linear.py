from __future__ import annotations

from typing import Annotated

from selfpos.merging.checks import check_chances, check_sum
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.sparse import drop_by_rank, weighted_sum
from selfpos.merging.stream import Array, Chunk


@kernel(
    reference="https://arxiv.org/abs/2406.11617", grain="row", random=True, checks=(check_chances, check_sum)
)
def della_linear(
    chunk: Chunk,
    *,
    density: Annotated[tuple[float, ...], "the mean chance of an entry to be kept", Limits(0, 1)] = (0.5,),
    epsilon: Annotated[
        tuple[float, ...], "ε, by how much the largest entry's chance exceeds the smallest's", Limits(0, 1)
    ] = (0.2,),
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
    rescale: Annotated[bool, "divide what is kept by its chance"] = True,
    normalize: Annotated[bool, "divide by the sum of the weights"] = False,
) -> Array:
    """DELLA: as dare-linear, but large entries of a row are kept more often.

    The chance of an entry is density + ε (r/(n−1) − 1/2), r its rank by magnitude among the n of its row; what is kept is divided by its
    chance. density ± ε/2 must lie within 0 and 1; density 1 keeps and 0 removes all, whatever ε. Absent weights are 1.

    Source: Deep et al. 2024, arXiv 2406.11617, section 3 (MAGPRUNE), with task arithmetic.
    Prefer it to dare-linear at low densities.
    """
    return weighted_sum(drop_by_rank(chunk, density, epsilon, rescale), chunk.weights, normalize) * scale
