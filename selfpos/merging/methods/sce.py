"""SCE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from selfpos.merging.maths.thresholds import kept, thresholds
from selfpos.merging.method import Share, kernel
from selfpos.merging.stream import Array, Chunk, Stream


def variance(chunk: Chunk) -> Array:
    """The variance of each entry over the vectors."""
    mean = sum(chunk.vectors[1:], start=chunk.vectors[0]) / len(chunk.vectors)
    return sum((vector - mean) ** 2 for vector in chunk.vectors) / len(chunk.vectors)


def selection(stream: Stream) -> Mapping[str, Any]:
    """Per tensor: the variance from which on entries count, and each vector's sum of squares over them."""

    def counts(key: str, numel: int) -> list[list[int]]:
        return [[kept(stream.settings.params(key)["select"], numel)]]

    limits = thresholds(stream, counts, "tensor", lambda chunk: [variance(chunk).reshape(-1)])

    def squares(chunks: Iterator[Chunk]) -> np.ndarray:
        total = np.zeros(len(stream.vectors))
        for chunk in chunks:
            selected = variance(chunk) >= limits[chunk.key][0][0]
            total += [float(np.sum((vector * selected).astype(np.float64) ** 2)) for vector in chunk.vectors]
        return total

    sums = stream.totals(squares, (len(stream.vectors),))
    return {key: (limits[key][0][0], sums[key]) for key in stream.keys}


@kernel(reference="https://arxiv.org/abs/2408.07990", weighting="none", statistics_pass=selection, reads=2)
def sce(chunk: Chunk, *, select: Share = 0.1) -> Array:
    """SCE: select the entries that vary most between vectors, weigh vectors by their energy there, erase
    minority signs.

    S: the `select` share of entries of a tensor with the largest variance over i; w_i = Σ_S V_i² / Σ_j Σ_S
    V_j²; among the V_i at an entry only those of the sign of Σ V_i count: V = Σ w_i V_i / Σ w_i over them, 0
    outside S.

    Args:
        select: share of each tensor's entries selected.

    One more pass finds S, another the w_i. Source: Wan et al. 2024 (FuseChat), arXiv 2408.07990, section 3.3.
    Prefer it when the vectors' differences matter more than what they share.
    """
    limit, energies = chunk.statistics
    total = float(energies.sum())
    weights = [1 / len(energies)] * len(energies)
    if total > 0:
        weights = [float(energy) / total for energy in energies]
    selected = variance(chunk) >= limit
    vectors = [vector * selected for vector in chunk.vectors]
    sign = sum(vectors[1:], start=vectors[0])
    merged, mass = sign * 0.0, sign * 0.0
    for vector, weight in zip(vectors, weights, strict=True):
        agrees = ((vector > 0) & (sign > 0)) | ((vector < 0) & (sign < 0))
        merged += vector * agrees * weight
        mass += agrees * weight
    return merged / (mass + (mass == 0))
