"""Inner products, norms and angles of task vectors, streamed from disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from selfpos.storage.numbers import to_float32
from selfpos.vectors.parts import spans
from selfpos.vectors.task_vector import TaskVector


def products(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Inner products of n arrays of equal size, (n, n), in float64."""
    wide = [row.astype(np.float64).reshape(-1) for row in rows]
    inner = np.empty((len(wide), len(wide)))
    for i, row in enumerate(wide):
        for j in range(i, len(wide)):
            inner[i, j] = inner[j, i] = np.dot(row, wide[j])
    return inner


def tensor_gram(vectors: Sequence[TaskVector], key: str) -> np.ndarray:
    """Inner products of the vectors at one tensor, (N, N) float64."""
    base = vectors[0].base
    raw, entry = base.raw(key), base.tensors[key]
    readers = [vector.reader(key) for vector in vectors]
    total = np.zeros((len(vectors), len(vectors)))
    for start, stop in spans(entry.shape):
        weights = to_float32(raw[start:stop], entry.dtype)
        total += products([reader(start, stop, weights) for reader in readers])
    return total


def gram(vectors: Sequence[TaskVector], *, threads: int = 2) -> np.ndarray:
    """Inner products of whole task vectors, streamed tensor by tensor in bounded memory.

    Args:
        vectors: N task vectors of one base.
        threads: how many tensors are read at a time.

    Returns:
        The Gram matrix, (N, N) float64.
    """
    from threadpoolctl import threadpool_limits

    # Each thread takes whole tensors; the linear algebra library would start threads for every product.
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda key: tensor_gram(vectors, key), vectors[0].keys))
    return np.sum(parts, axis=0) if parts else np.zeros((len(vectors), len(vectors)))


def norms_and_cosines(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms (N,) and cosines (N, N) from a Gram matrix (N, N). A zero vector's cosines are 0."""
    norms = np.sqrt(np.clip(np.diag(gram), 0, None))
    products = np.outer(norms, norms)
    cosines = np.divide(gram, products, out=np.zeros_like(products), where=products > 0)
    np.fill_diagonal(cosines, 1.0)
    return norms, np.clip(cosines, -1.0, 1.0)
