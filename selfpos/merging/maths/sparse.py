"""Ways to thin out task vectors and to join them: shared by TIES, DARE, DELLA and Breadcrumbs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfpos.merging.stream import Array, Chunk, array_module


def elect_and_join(vectors: list[Array], weights: list[float], normalize: bool) -> Array:
    """TIES' sign election, per entry: the sign of Σ w_i V_i, then the sum of the w_i V_i of that sign.

    With `normalize` the sum is divided by Σ |w_i| over the same i. Entries that are zero have no vote. Where
    no vector agrees, or the signs balance, the result is 0.
    """
    if any(weight != 1.0 for weight in weights):
        vectors = [vector * weight for vector, weight in zip(vectors, weights, strict=True)]
    total = vectors[0] + 0.0
    for vector in vectors[1:]:
        total += vector
    positive, negative = total > 0, total < 0
    joined, agreeing = total * 0.0, total * 0.0
    # of weights 1 the sum of those that agree is their number, for which a byte will do
    counted = len(weights) < 256 and all(abs(weight) == 1.0 for weight in weights)
    module = array_module(total)
    number = module.zeros_like(positive, dtype=module.uint8)
    for vector, weight in zip(vectors, weights, strict=True):
        agrees = ((vector > 0) & positive) | ((vector < 0) & negative)
        joined += vector * agrees
        if counted:
            number += agrees
        elif normalize:
            agreeing += agrees * abs(weight)
    if normalize:
        agreeing += number
        agreeing += agreeing == 0  # where nothing agreed: 0 / 1
        joined /= agreeing
    return joined


def drop_at_random(chunk: Chunk, density: Sequence[float], rescale: bool) -> list[Array]:
    """Every entry kept with chance `density`, and then divided by it with `rescale`."""
    thinned = []
    for index, (vector, chance) in enumerate(zip(chunk.vectors, density, strict=True)):
        if chance < 1:
            vector = vector * (chunk.uniform(index) < chance)
            if rescale and chance > 0:
                vector /= chance
        thinned.append(vector)
    return thinned


def drop_by_rank(
    chunk: Chunk, density: Sequence[float], epsilon: Sequence[float], rescale: bool
) -> list[Array]:
    """Every entry kept with a chance that rises with its rank in the row from density − ε/2 to density + ε/2.

    Density 1 keeps and 0 removes all entries, whatever ε, as in mergekit.
    """
    thinned = []
    for index, (vector, middle, width) in enumerate(zip(chunk.vectors, density, epsilon, strict=True)):
        if middle in (0, 1):
            thinned.append(vector * middle)
            continue
        chance = ranks(vector) * width + (middle - width / 2)
        vector = vector * (chunk.uniform(index) < chance)
        thinned.append(vector / chance if rescale else vector)
    return thinned


def ranks(rows: Array) -> Array:
    """Each entry's rank by magnitude in its row, 0 to 1 (1/2 in rows of one). Ties keep their order."""
    count = rows.shape[-1]
    if count == 1:
        return rows * 0.0 + 0.5
    if isinstance(rows, np.ndarray):
        # Magnitude and position in one integer: sorting those is several times faster than an argsort.
        keys = np.abs(rows).view(np.uint32).astype(np.uint64) << np.uint64(32)
        keys |= np.arange(count, dtype=np.uint64)
        keys.sort(axis=-1)
        order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        by_position = np.empty(rows.shape, np.float32)
        values = np.arange(count, dtype=np.float32) / np.float32(count - 1)
        np.put_along_axis(by_position, order, values, axis=-1)
        return by_position
    xp = array_module(rows)
    order = xp.argsort(xp.argsort(xp.abs(rows), dim=-1, stable=True), dim=-1)
    return order.to(rows.dtype) / (count - 1)
