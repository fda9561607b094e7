from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from selfpos.merging.checks import check_scope
from selfpos.merging.consensus import elect_and_join
from selfpos.merging.parameters import Limits
from selfpos.merging.registry import kernel
from selfpos.merging.stream import Array, Chunk, Stream, array_module
from selfpos.merging.thresholds import kept, thresholds


def survey(stream: Stream) -> Mapping[str, Any]:
    """The magnitude from which on entries are kept, per tensor and vector."""
    scope = stream.settings.constant("scope")
    return thresholds(
        stream,
        lambda key, numel: [[kept(share, numel)] for share in stream.settings.params(key)["density"]],
        scope,
    )


@kernel(reference="https://arxiv.org/abs/2306.01708", survey=survey, checks=(check_scope,))
def ties(
    chunk: Chunk,
    *,
    density: Annotated[
        tuple[float, ...], "share of each vector's entries kept, the largest", Limits(0, 1)
    ] = (0.2,),
    scale: Annotated[float, "λ, the factor of the merged vector"] = 1.0,
    scope: Annotated[
        Literal["model", "tensor"], "what the share is of: a whole vector, as in the paper, or each tensor"
    ] = "model",
    normalize: Annotated[
        bool, "divide by the sum of the weights that agree (else their plain weighted sum)"
    ] = True,
) -> Array:
    """TIES: trim small entries, elect a sign for each, join what agrees.

    V_i' keeps the `density` largest |entries| of V_i; s = sign Σ w_i V_i'; V = λ · Σ w_i V_i' / Σ |w_i|, both over the i with sign w_i V_i' = s.

    Entries that tie with the last one kept are kept too. Absent weights are 1. One more pass finds the thresholds, exactly.
    Source: Yadav et al. 2023, arXiv 2306.01708, section 4.
    Prefer it when vectors of different tasks disagree in sign, and their small entries are noise.
    """
    xp = array_module(chunk.base)
    trimmed = [
        vector * (xp.abs(vector) >= limits[0])
        for vector, limits in zip(chunk.vectors, chunk.statistics, strict=True)
    ]
    return elect_and_join(trimmed, chunk.weights, normalize) * scale
