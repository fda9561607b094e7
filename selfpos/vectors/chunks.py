"""The pieces in which tensors are worked on."""

from __future__ import annotations

import math
from collections.abc import Iterator

CHUNK = 1 << 16
"""Elements per piece: at 4 bytes each, the pieces of a base, a handful of vectors and the temporaries between them stay in a core's L2 cache."""


def spans(shape: tuple[int, ...], size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Flat ranges (start, stop) covering a tensor of `shape`, each of whole rows and about `size` elements, where one row is not longer than that."""
    numel = math.prod(shape)
    row = numel // shape[0] if shape and shape[0] else 1
    step = max(1, size // row) * row if row <= size else size
    for start in range(0, numel, step):
        yield start, min(numel, start + step)
