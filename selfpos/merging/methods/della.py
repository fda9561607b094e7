"""DELLA, with the plain sum or with TIES' election of signs."""

from __future__ import annotations

from collections.abc import Sequence

from selfpos.errors import SelfposError
from selfpos.merging.maths.sparse import drop_by_rank, elect_and_join, weighted_sum
from selfpos.merging.method import PerVector, kernel
from selfpos.merging.settings import Settings, check_sum
from selfpos.merging.stream import Array, Chunk


def check_chances(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse chances density ± ε/2 outside 0 and 1, or 0 where they divide; densities 0 and 1 need none."""
    for key in keys:
        params = settings.params(key)
        for density, epsilon in zip(params["density"], params["epsilon"], strict=True):
            if density in (0, 1):
                continue
            low, high = density - epsilon / 2, density + epsilon / 2
            found = f"found {density:g} ± {epsilon / 2:g}"
            if low < 0 or high > 1:
                raise SelfposError(
                    f"density ± epsilon/2 must lie between 0 and 1, {found}; make epsilon smaller"
                )
            if low == 0 and params["rescale"]:
                raise SelfposError(
                    "density − epsilon/2 must lie above 0 where what is kept is divided by its chance, "
                    f"{found}; make epsilon smaller, or set rescale to false"
                )


@kernel(
    reference="https://arxiv.org/abs/2406.11617",
    chunking="row",
    random=True,
    checks=(check_chances, check_sum),
)
def della_linear(
    chunk: Chunk,
    *,
    density: PerVector = (0.5,),
    epsilon: PerVector = (0.2,),
    scale: float = 1.0,
    rescale: bool = True,
    normalize: bool = False,
) -> Array:
    """DELLA: as dare-linear, but large entries of a row are kept more often.

    The chance of an entry is density + ε (r/(n−1) − 1/2), r its rank by magnitude among the n of its row.
    density ± ε/2 must lie within 0 and 1; density 1 keeps and 0 removes all, whatever ε. Absent weights are
    1.

    Args:
        density: the mean chance of an entry to be kept.
        epsilon: ε, by how much the largest entry's chance exceeds the smallest's.
        scale: λ, the factor of the merged vector.
        rescale: divide what is kept by its chance.
        normalize: divide by the sum of the weights.

    Source: Deep et al. 2024, arXiv 2406.11617, section 3 (MAGPRUNE), with task arithmetic.
    Prefer it to dare-linear at low densities.
    """
    return weighted_sum(drop_by_rank(chunk, density, epsilon, rescale), chunk.weights, normalize) * scale


@kernel(reference="https://arxiv.org/abs/2406.11617", chunking="row", random=True, checks=(check_chances,))
def della_ties(
    chunk: Chunk,
    *,
    density: PerVector = (0.5,),
    epsilon: PerVector = (0.2,),
    scale: float = 1.0,
    rescale: bool = True,
    normalize: bool = True,
) -> Array:
    """DELLA with TIES' election of signs: drop small entries more often, join what agrees.

    V_i' as in della-linear; then sign election and joining of the V_i' as in ties.

    Args:
        density: the mean chance of an entry to be kept.
        epsilon: ε, by how much the largest entry's chance exceeds the smallest's.
        scale: λ, the factor of the merged vector.
        rescale: divide what is kept by its chance.
        normalize: divide by the sum of the weights that agree (else their plain weighted sum).

    Source: Deep et al. 2024, arXiv 2406.11617, section 3.
    Prefer it to dare-ties at low densities.
    """
    return elect_and_join(drop_by_rank(chunk, density, epsilon, rescale), chunk.weights, normalize) * scale
