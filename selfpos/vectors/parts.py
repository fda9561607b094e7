"""The parts of a task vector: tensors to subtract the base from, or low-rank factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from selfpos.storage.model_folder import ModelFolder, raw_tensor
from selfpos.storage.numbers import to_float32
from selfpos.storage.tensor_file import TensorEntry

Reader = Callable[[int, int, np.ndarray], np.ndarray]
"""(start, stop, base[start:stop] as flat float32) -> V[start:stop] as a new flat float32 array."""

Maps = dict[Path, np.ndarray]

CHUNK = 1 << 16
"""Elements read at a time: at 4 bytes each, a handful of vectors and temporaries fit a core's L2 cache."""


def spans(shape: tuple[int, ...], size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Flat ranges (start, stop) of about `size` elements; of whole rows where a row is that short."""
    numel = math.prod(shape)
    row = numel // shape[0] if shape and shape[0] else 1
    step = max(1, size // row) * row if row <= size else size
    for start in range(0, numel, step):
        yield start, min(numel, start + step)


@dataclass(frozen=True)
class Dense:
    """V = tuned − base."""

    entry: TensorEntry
    maps: Maps = field(repr=False)

    def open(self) -> Reader:
        raw, dtype = raw_tensor(self.entry, self.maps), self.entry.dtype

        def read(start: int, stop: int, base: np.ndarray) -> np.ndarray:
            values = to_float32(raw[start:stop], dtype)
            return np.subtract(values, base, out=None if dtype == "F32" else values)

        return read


def _by_rows(columns: int, vector: Callable[[slice], np.ndarray]) -> Reader:
    """A reader of ranges out of whole rows, which `vector` gives as (rows, columns)."""

    def read(start: int, stop: int, base: np.ndarray) -> np.ndarray:
        first, last = start // columns, -(-stop // columns)
        return vector(slice(first, last)).reshape(-1)[start - first * columns : stop - first * columns]

    return read


@dataclass(frozen=True)
class LowRank:
    """V = scaling · B·A (transposed, and folded into the tensor's shape, as the layer's type wants)."""

    a: TensorEntry
    b: TensorEntry
    scaling: float
    transposed: bool
    maps: Maps = field(repr=False)

    @property
    def rank(self) -> int:
        return self.a.shape[1] if self.embedding else self.a.shape[0]

    @property
    def embedding(self) -> bool:
        return ".lora_embedding_" in self.a.key

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """(left, right) in float32 with V = left @ right, flattened to (first axis, others)."""
        a, b = (
            to_float32(raw_tensor(entry, self.maps), entry.dtype).reshape(entry.shape[0], -1)
            for entry in (self.a, self.b)
        )
        left, right = (a.T, b.T) if self.transposed else (b, a)
        return left * np.float32(self.scaling), right

    def open(self) -> Reader:
        left, right = self.factors()
        return _by_rows(right.shape[1], lambda rows: left[rows] @ right)


@dataclass(frozen=True)
class Dora:
    """V = m·(W + D)/‖W + D‖ − W, D = scaling·B·A, norms over rows (Liu et al., arXiv 2402.09353, eq. 5)."""

    low_rank: LowRank
    magnitude: TensorEntry
    base: ModelFolder = field(repr=False)
    key: str
    maps: Maps = field(repr=False)

    def open(self) -> Reader:
        left, right = self.low_rank.factors()
        columns = right.shape[1]
        magnitude = to_float32(raw_tensor(self.magnitude, self.maps), self.magnitude.dtype).reshape(-1, 1)
        weights, dtype = self.base.raw(self.key), self.base.tensors[self.key].dtype

        def vector(rows: slice) -> np.ndarray:
            weight = to_float32(weights[rows.start * columns : rows.stop * columns], dtype).reshape(
                -1, columns
            )
            moved = weight + left[rows] @ right
            moved *= magnitude[rows] / np.linalg.norm(moved, axis=1, keepdims=True)
            moved -= weight
            return moved

        return _by_rows(columns, vector)


@dataclass(frozen=True)
class Shift:
    """V = scaling · b for a bias that an adapter adds."""

    entry: TensorEntry
    scaling: float
    maps: Maps = field(repr=False)

    def open(self) -> Reader:
        values = to_float32(raw_tensor(self.entry, self.maps), self.entry.dtype)

        def read(start: int, stop: int, base: np.ndarray) -> np.ndarray:
            return values[start:stop] * np.float32(self.scaling)

        return read


@dataclass(frozen=True)
class MatchedRows:
    """V of a table whose rows lie elsewhere: row i of the base is row `rows[i]` of `entry`, none at −1."""

    entry: TensorEntry
    rows: np.ndarray = field(repr=False, compare=False)
    maps: Maps = field(repr=False, compare=False)

    def open(self) -> Reader:
        columns = math.prod(self.entry.shape[1:])
        tuned, dtype = raw_tensor(self.entry, self.maps).reshape(-1, columns), self.entry.dtype

        def read(start: int, stop: int, base: np.ndarray) -> np.ndarray:
            first, last = start // columns, -(-stop // columns)
            chosen = self.rows[first:last]
            values = np.array(to_float32(tuned[np.maximum(chosen, 0)], dtype)).reshape(-1)
            values = values[start - first * columns : stop - first * columns]
            values -= base
            still = np.repeat(chosen < 0, columns)[start - first * columns : stop - first * columns]
            values[still] = 0
            return values

        return read


@dataclass(frozen=True)
class Sum:
    """V of several parts of one tensor together."""

    parts: tuple[TensorPart, ...]

    def open(self) -> Reader:
        readers = [part.open() for part in self.parts]

        def read(start: int, stop: int, base: np.ndarray) -> np.ndarray:
            total = readers[0](start, stop, base)
            for reader in readers[1:]:
                total = total + reader(start, stop, base)
            return total

        return read


@dataclass(frozen=True)
class InMemory:
    """V as it lies in memory or in a memory map, flat float32."""

    values: np.ndarray = field(repr=False)

    def open(self) -> Reader:
        return lambda start, stop, base: np.array(self.values[start:stop])


def within(part: TensorPart | None) -> Iterator[TensorPart]:
    """The part itself, and those of which it is made."""
    if part is None:
        return
    yield part
    inner = part.parts if isinstance(part, Sum) else (part.low_rank,) if isinstance(part, Dora) else ()
    for inner_part in inner:
        yield from within(inner_part)


TensorPart = Dense | MatchedRows | LowRank | Dora | Shift | Sum | InMemory
