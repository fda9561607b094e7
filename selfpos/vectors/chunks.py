"""The chunks in which tensors are read."""

from __future__ import annotations

import math
from collections.abc import Iterator

CHUNK = 1 << 16
"""Elements per chunk: at 4 bytes each, a handful of vectors and temporaries stay in a core's L2 cache."""


def spans(shape: tuple[int, ...], size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Flat ranges (start, stop) of about `size` elements; of whole rows where a row is that short."""
    numel = math.prod(shape)
    row = numel // shape[0] if shape and shape[0] else 1
    step = max(1, size // row) * row if row <= size else size
    for start in range(0, numel, step):
        yield start, min(numel, start + step)
