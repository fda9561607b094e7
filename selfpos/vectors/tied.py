"""Tensors that a model stores twice under two names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfpos.storage.model_folder import ModelFolder, raw_tensor
from selfpos.vectors.pieces import Dense
from selfpos.vectors.task_vector import TaskVector

SMALLEST = 1 << 12
"""Smaller tensors are equal by chance (biases of zeros): they count as tensors of their own."""


def tied_tensors(base: ModelFolder, vectors: Sequence[TaskVector]) -> dict[str, str]:
    """Second name → first name of matrices that hold the same bytes in the base and in every vector, such as T5's shared embeddings."""
    seen: dict[tuple[str, tuple[int, ...], bytes], list[str]] = {}
    tied: dict[str, str] = {}
    for key, entry in base.tensors.items():
        if not entry.mergeable or len(entry.shape) != 2 or entry.numel < SMALLEST:
            continue
        twins = seen.setdefault((entry.dtype, entry.shape, base.raw(key)[:256].tobytes()), [])
        first = next((twin for twin in twins if _same(base, vectors, key, twin)), None)
        if first is None:
            twins.append(key)
        else:
            tied[key] = first
    return tied


def _same(base: ModelFolder, vectors: Sequence[TaskVector], key: str, twin: str) -> bool:
    for vector in vectors:
        one, other = vector.pieces.get(key), vector.pieces.get(twin)
        if one is None and other is None:
            continue
        if not (isinstance(one, Dense) and isinstance(other, Dense) and one.entry.dtype == other.entry.dtype):
            return False
        if not np.array_equal(raw_tensor(one.entry, one.maps), raw_tensor(other.entry, other.maps)):
            return False
    return np.array_equal(base.raw(key), base.raw(twin))
