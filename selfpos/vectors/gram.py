"""Inner products of task vectors, streamed from disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.numbers import to_float32
from selfpos.vectors.chunks import CHUNK, spans
from selfpos.vectors.task_vector import TaskVector


def tensor_gram(base: ModelFolder, vectors: Sequence[TaskVector], key: str, *, with_base: bool = False) -> np.ndarray:
    """Inner products at one tensor, float64: (N, N) of the vectors, or (N + 1, N + 1) of [θ0, V_1..V_N] with `with_base`."""
    entry = base.tensors[key]
    raw = base.raw(key)
    readers = [vector.reader(key) for vector in vectors]
    count = len(vectors) + with_base
    total = np.zeros((count, count))
    rows = np.empty((count, min(CHUNK, max(entry.numel, 1))))
    for start, stop in spans(entry.shape):
        if stop - start > rows.shape[1]:
            rows = np.empty((count, stop - start))
        part = rows[:, : stop - start]
        weights = to_float32(raw[start:stop], entry.dtype)
        if with_base:
            part[0] = weights
        for row, reader in zip(part[with_base:], readers, strict=True):
            row[:] = reader(start, stop, weights)
        for i in range(count):
            for j in range(i, count):
                total[i, j] += np.dot(part[i], part[j])
    return np.triu(total) + np.triu(total, 1).T


def gram(vectors: Sequence[TaskVector], *, threads: int = 2) -> np.ndarray:
    """Inner products of whole task vectors, (N, N) float64, streamed tensor by tensor in bounded memory."""
    from threadpoolctl import threadpool_limits

    base = vectors[0].base
    with (
        threadpool_limits(1),
        ThreadPoolExecutor(threads) as pool,
    ):  # one thread per tensor is enough; BLAS would start more for each product
        parts = list(pool.map(lambda key: tensor_gram(base, vectors, key), vectors[0].keys))
    return np.sum(parts, axis=0) if parts else np.zeros((len(vectors), len(vectors)))
