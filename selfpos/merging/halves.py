"""Combinations of bfloat16 tensors from their stored bits. Two numbers lie in a word of 32 bits; they are widened, summed and rounded as its halves.

The operations on each number, and so the result, are those of prepare.combine, in fewer passes over less memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from selfpos.merging.stream import Stream, finite
from selfpos.storage.model_folder import raw_tensor
from selfpos.vectors.chunks import CHUNK
from selfpos.vectors.pieces import Dense

# Arrays: numpy would make one of a number at every call.
SIXTEEN, UPPER, ONE, HALF = (np.array(bits, np.uint32) for bits in (16, 0xFFFF0000, 1, 0x7FFF))
LINE = 64
"""Bytes of a cache line; arithmetic is slower on arrays that start within one."""


def stored_halves(stream: Stream, key: str) -> list[np.ndarray] | None:
    """The stored bits of the base and of all vectors' models at `key`; None unless all are bfloat16, and the arithmetic is the CPU's."""
    pieces = [vector.pieces.get(key) for vector in stream.vectors]
    dense = [piece for piece in pieces if isinstance(piece, Dense) and piece.entry.dtype == "BF16"]
    if stream.base.tensors[key].dtype != "BF16" or len(dense) < len(pieces) or stream.device != "cpu":
        return None
    return [stream.base.raw(key), *(raw_tensor(piece.entry, piece.maps) for piece in dense)]


def sums(
    stored: Sequence[np.ndarray], coefficients: Sequence[float], ranges: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int, np.ndarray | None]]:
    """(start, stop, stored bits) of θ0 + Σ c_i V_i at each range; `stored` and `coefficients` are those of prepare.combine, the base first.

    The bits are overwritten by the next. None stands for those of a sum that is not finite, and where no whole words lie.
    """
    room = np.empty(3 * CHUNK + LINE, np.float32)
    first = -room.ctypes.data % LINE // room.itemsize
    rows = room[first : first + 3 * CHUNK].reshape(3, CHUNK)
    for start, stop in ranges:
        pieces = [bits[start:stop] for bits in stored]
        size = stop - start
        whole = size % 2 == 0 and size <= CHUNK and all(bits.view(np.uint32).flags.aligned for bits in pieces)
        yield start, stop, _sum(pieces, coefficients, *rows[:, :size]) if whole else None


def _sum(
    pieces: list[np.ndarray],
    coefficients: Sequence[float],
    base: np.ndarray,
    move: np.ndarray,
    total: np.ndarray,
) -> np.ndarray | None:
    own = coefficients[: len(coefficients) - len(pieces) + 1]
    _widen(pieces[0], base)
    started = bool(own) and own[0] != 1.0
    if started:
        np.multiply(base, own[0] - 1.0, total)
    for bits, coefficient in zip(pieces[1:], coefficients[len(own) :], strict=True):
        vector = move if started else total
        _widen(bits, vector)
        np.subtract(vector, base, vector)
        np.multiply(vector, coefficient, vector)
        if started:
            np.add(total, move, total)
        started = True
    np.add(total, base, total)
    return _round(total, move) if finite(total) else None


def _widen(stored: np.ndarray, values: np.ndarray) -> None:
    """The lower halves of all words, then the upper ones, as float32."""
    words, bits, middle = stored.view(np.uint32), values.view(np.uint32), values.size // 2
    np.left_shift(words, SIXTEEN, bits[:middle])
    np.bitwise_and(words, UPPER, bits[middle:])


def _round(values: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Back to words, to nearest, ties to even, in the memory of `values`."""
    bits, odd, middle = values.view(np.uint32), room.view(np.uint32), values.size // 2
    np.right_shift(bits, SIXTEEN, odd)
    np.bitwise_and(odd, ONE, odd)
    np.add(odd, HALF, odd)
    np.add(bits, odd, bits)
    lower, upper = bits[:middle], bits[middle:]
    np.right_shift(lower, SIXTEEN, lower)
    np.bitwise_and(upper, UPPER, upper)
    return np.bitwise_or(lower, upper, lower).view(np.uint16)
