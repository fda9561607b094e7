"""Inner products of base and vectors, tensor by tensor."""

from __future__ import annotations

import numpy as np

from selfpos.merging.stream import Stream
from selfpos.vectors.gram import products


def inner_products(stream: Stream, *, with_base: bool = False) -> dict[str, np.ndarray]:
    """For each tensor: inner products in float64 of [V_1..V_N], (N, N), or of [θ0, V_1..V_N], (N + 1, N + 1), with `with_base`."""

    def measure(key: str, ranges: list[tuple[int, int]]) -> np.ndarray:
        return np.sum(
            [
                products([chunk.base, *chunk.vectors] if with_base else chunk.vectors)
                for chunk in stream.chunks(key, ranges)
            ],
            axis=0,
        )

    count = len(stream.vectors) + with_base
    totals = {key: np.zeros((count, count)) for key in stream.keys}
    tasks = list(stream.tasks())
    for (key, _), part in zip(tasks, stream.map(measure, tasks), strict=True):
        totals[key] += part
    return totals
