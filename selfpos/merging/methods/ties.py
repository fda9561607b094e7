"""TIES."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from selfpos.errors import SelfposError
from selfpos.merging.maths.sparse import elect_and_join
from selfpos.merging.maths.thresholds import kept, thresholds
from selfpos.merging.method import PerVector, kernel
from selfpos.merging.settings import Settings
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
