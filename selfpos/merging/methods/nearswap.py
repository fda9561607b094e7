"""NearSwap."""

from __future__ import annotations

from selfpos.merging.method import NotNegative, kernel
from selfpos.merging.stream import Array, Chunk, array_module


@kernel(reference="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001", weighting="none", most=1)
def nearswap(chunk: Chunk, *, t: NotNegative) -> Array:
    """NearSwap: take the other model's weight where it is near the base's, move by t toward it elsewhere.

    θ = θ0 + w V with w = min(1, t/|V|) per entry, that is V cut off at ±t.

    Args:
        t: the farthest any weight moves.

    Source: alchemonaut 2024, QuartetAnemoi-70B-t0.0001.
    Prefer it to blend in a second model softly; for one vector only.
    """
    return array_module(chunk.base).clip(chunk.vectors[0], -t, t)
