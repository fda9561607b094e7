"""Methods that thin out task vectors: TIES, and DARE, DELLA and Breadcrumbs with or without its election."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from selfpos.errors import SelfposError
from selfpos.merging.maths.matrices import weighted_sum
from selfpos.merging.maths.sparse import drop_at_random, drop_by_rank, elect_and_join
from selfpos.merging.maths.thresholds import kept, thresholds
from selfpos.merging.method import PerVector, kernel
from selfpos.merging.settings import Settings, check_sum
from selfpos.merging.stream import Array, Chunk, Stream, array_module


def trim_limits(stream: Stream) -> Mapping[str, Any]:
    """The magnitude from which on entries are kept, per tensor and vector."""

    def counts(key: str, numel: int) -> list[list[int]]:
        return [[kept(share, numel)] for share in stream.settings.params(key)["density"]]

    return thresholds(stream, counts, stream.settings.constant("scope"))


def check_scope(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse a density that differs between tensors where one threshold is for them all."""
    first, *others = (settings.params(key)["density"] for key in keys)
    if settings.constant("scope") == "model" and any(density != first for density in others):
        raise SelfposError(
            "the density differs between tensors, so one threshold for the whole model has no meaning; set "
            "scope to tensor"
        )


@kernel(reference="https://arxiv.org/abs/2306.01708", statistics_pass=trim_limits, checks=(check_scope,))
def ties(
    chunk: Chunk,
    *,
    density: PerVector = (0.2,),
    scale: float = 1.0,
    scope: Literal["model", "tensor"] = "model",
    normalize: bool = True,
) -> Array:
    """TIES: trim small entries, elect a sign for each, join what agrees.

    V_i' keeps the `density` largest |entries| of V_i; s = sign Σ w_i V_i'; V = λ · Σ w_i V_i' / Σ |w_i|, both
    over the i with sign w_i V_i' = s. Entries that tie with the last one kept are kept too. Absent weights
    are 1.

    Args:
        density: share of each vector's entries kept, the largest.
        scale: λ, the factor of the merged vector.
        scope: what the share is of: a whole vector, as in the paper, or each tensor.
        normalize: divide by the sum of the weights that agree (else their plain weighted sum).

    One more pass finds the thresholds, exactly. Source: Yadav et al. 2023, arXiv 2306.01708, section 4.
    Prefer it when vectors of different tasks disagree in sign, and their small entries are noise.
    """
    xp = array_module(chunk.base)
    limits = zip(chunk.vectors, chunk.statistics, strict=True)
    trimmed = [vector * (xp.abs(vector) >= limit[0]) for vector, limit in limits]
    return elect_and_join(trimmed, chunk.weights, normalize) * scale


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


def check_chances(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse chances density ± ε/2 outside 0 and 1, or 0 where they divide; densities 0 and 1 need none."""
    for key in keys:
        params = settings.params(key)
        for density, epsilon in zip(params["density"], params["epsilon"], strict=True):
            if density in (0, 1):
                continue
            low, high = density - epsilon / 2, density + epsilon / 2
            stated = f"found {density:g} ± {epsilon / 2:g}"
            if low < 0 or high > 1:
                raise SelfposError(
                    f"density ± epsilon/2 must lie between 0 and 1, {stated}; make epsilon smaller"
                )
            if low == 0 and params["rescale"]:
                raise SelfposError(
                    "density − epsilon/2 must lie above 0 where what is kept is divided by its chance, "
                    f"{stated}; make epsilon smaller, or set rescale to false"
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


def band_limits(stream: Stream) -> Mapping[str, Any]:
    """Per tensor and vector: the magnitudes below which, and from which on, entries are removed."""

    def counts(key: str, numel: int) -> list[list[int]]:
        params = stream.settings.params(key)
        ranks = []
        for density, gamma in zip(params["density"], params["gamma"], strict=True):
            target = kept(density, numel)
            top = min(math.floor(gamma * numel + 1e-9), numel - target)
            ranks.append([top, top + target])
        return ranks

    return thresholds(stream, counts, "tensor")


def band(chunk: Chunk) -> list[Array]:
    """The vectors without their largest and smallest entries, by the limits of `band_limits`."""
    xp = array_module(chunk.base)
    thinned = []
    for vector, (high, low) in zip(chunk.vectors, chunk.statistics, strict=True):
        size = xp.abs(vector)
        thinned.append(vector * ((size >= low) & (size < high)))
    return thinned


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
