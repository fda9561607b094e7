"""Base and vectors as a stream of chunks: what statistics passes and kernels see."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, overload

import numpy as np

from selfpos.errors import SelfposError
from selfpos.merging.depth import is_embedding
from selfpos.merging.probe_statistics import ProbeStatistics
from selfpos.merging.registry import Grain
from selfpos.merging.rules import Settings
from selfpos.storage.model_folder import ModelFolder
from selfpos.storage.numbers import to_float32
from selfpos.vectors import TaskVector
from selfpos.vectors.chunks import CHUNK, spans
from selfpos.vectors.pieces import Dense, Reader

Array = Any
"""A float32 numpy array, or a torch tensor when a device was asked for; kernels use what both have (see array_module)."""

TASK = 16 * CHUNK
"""Elements that one thread takes at a time."""


ON_DEVICE = 64
"""On an accelerator chunks are so many times larger: there the way to the device costs, not the cache."""


def is_linear_map(key: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the matrix of a linear map, by its shape and name: not a table of embeddings, not a single row or column."""
    return len(shape) == 2 and min(shape) > 1 and not is_embedding(key)


def array_module(array: Array) -> Any:
    """numpy or torch, whichever `array` is from: both name the functions that kernels need alike."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def like(array: Array, values: np.ndarray) -> Array:
    """`values` as an array of the kind of `array`, on its device."""
    return (
        values if isinstance(array, np.ndarray) else array_module(array).from_numpy(values).to(array.device)
    )


@dataclass(frozen=True)
class OneByOne(Sequence[Array]):
    """Arrays that are read each time they are asked for: who goes through them holds one of them, not all."""

    read: Callable[[int], Array]
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Array]: ...
    def __getitem__(self, index: int | slice) -> Array:
        places = range(self.length)[index]
        return self.read(places) if isinstance(places, int) else [self.read(place) for place in places]


@dataclass(slots=True)
class Chunk:
    """A piece of one tensor: flat for grain 'element', (rows, columns) for 'row'. For 'matrix' a linear map's whole matrix, and flat pieces of
    every tensor that is none (embeddings, norms, biases). The vectors of a whole matrix are read one by one.

    `statistics` is what the method's survey found for this tensor; `probe[name]` holds the data statistics of each vector for it, where all have such.
    """

    key: str
    start: int
    base: Array
    vectors: Sequence[Array]
    weights: list[float]
    seed: int = 0
    statistics: Any = None
    probe: dict[str, Sequence[Array]] = field(default_factory=dict)

    def uniform(self, index: int) -> Array:
        """Random numbers in [0, 1) of the chunk's shape for vector `index`, the same for the same seed whatever threads do."""
        words = np.random.SeedSequence([self.seed, zlib.crc32(self.key.encode()), index, self.start])
        values = np.random.Generator(np.random.SFC64(words)).random(tuple(self.base.shape), dtype=np.float32)
        return like(self.base, values)


@dataclass(frozen=True)
class Stream:
    """Base and vectors at the tensors `keys`. `tied` maps the second name of a tensor that is stored twice to its first. With `one_by_one` the
    vectors of every chunk are read as a kernel goes through them, which leaves more of a core's cache to each. Without `checked` numbers that are
    not finite are passed on, for a reader who will see them in what becomes of them.
    """

    base: ModelFolder
    vectors: list[TaskVector]
    keys: tuple[str, ...]
    settings: Settings
    grain: Grain = "element"
    one_by_one: bool = False
    checked: bool = True
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    tied: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, list[ProbeStatistics]] = field(default_factory=dict)
    advance: Callable[[int], None] = lambda elements: None

    def tasks(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, list[tuple[int, int]]]]:
        """Each tensor cut into (key, ranges) of about TASK elements; ranges are chunks."""
        for key in self.keys if keys is None else keys:
            ranges: list[tuple[int, int]] = []
            size = 0
            for start, stop in self.ranges(key):
                ranges.append((start, stop))
                size += stop - start
                if size >= TASK:
                    yield key, ranges
                    ranges, size = [], 0
            if ranges:
                yield key, ranges

    def ranges(self, key: str) -> Iterator[tuple[int, int]]:
        """The chunks of a tensor, as flat ranges."""
        shape = self.base.tensors[key].shape
        size = CHUNK if self.device == "cpu" else CHUNK * ON_DEVICE
        if self.grain == "matrix" and is_linear_map(key, shape):
            return iter([(0, math.prod(shape))])
        if self.grain == "row":
            size = max(size, math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape))
        return spans(shape, size)

    def chunks(
        self, key: str, ranges: Iterable[tuple[int, int]] | None = None, statistics: Any = None
    ) -> Iterator[Chunk]:
        """Read the chunks of a tensor, or some of them, one by one. Raises SelfposError at a number that is not finite."""
        key = self.tied.get(key, key)
        entry = self.base.tensors[key]
        raw = self.base.raw(key)
        readers = [vector.reader(key) for vector in self.vectors]
        weights = self.settings.weights(key)
        one_by_one = self.one_by_one or (self.grain == "matrix" and is_linear_map(key, entry.shape))
        for start, stop in self.ranges(key) if ranges is None else ranges:
            base = to_float32(raw[start:stop], entry.dtype)
            if self.checked and not finite(base):
                raise _not_finite(key, str(entry.file), base, start)
            lazy = OneByOne(partial(self._read, key, start, stop, base, readers), len(readers))
            vectors: Sequence[Array] = lazy if one_by_one else list(lazy)
            yield Chunk(
                key,
                start,
                self._shaped(key, base),
                vectors,
                weights,
                self.seed,
                statistics,
                self._probe(key, start, stop),
            )
            self.advance((stop - start) * (1 + len(readers)))

    def _read(
        self, key: str, start: int, stop: int, base: np.ndarray, readers: list[Reader], index: int
    ) -> Array:
        move = readers[index](start, stop, base)
        if self.checked and not finite(move):
            piece, source = self.vectors[index].pieces.get(key), self.vectors[index].source
            raise _not_finite(key, str(piece.entry.file if isinstance(piece, Dense) else source), move, start)
        return self._shaped(key, move)

    def _probe(self, key: str, start: int, stop: int) -> dict[str, Sequence[Array]]:
        shape = self.base.tensors[key].shape

        def read(files: list[ProbeStatistics], index: int) -> Array:
            array = files[index].read(key, shape, start, stop)
            return self._shaped(key, array) if array.size == stop - start else self._moved(array)

        known = {
            name: files
            for name, files in self.statistics.items()
            if all(key in file.entries for file in files)
        }
        return {name: OneByOne(partial(read, files), len(files)) for name, files in known.items()}

    def _shaped(self, key: str, array: np.ndarray) -> Array:
        shape = self.base.tensors[key].shape
        if self.grain == "row":
            array = array.reshape(-1, math.prod(shape[1:])) if len(shape) > 1 else array.reshape(1, -1)
        elif self.grain == "matrix" and is_linear_map(key, shape):
            array = array.reshape(shape)
        return self._moved(array)

    def _moved(self, array: np.ndarray) -> Array:
        if self.device == "cpu":
            return array
        import torch

        return torch.from_numpy(np.array(array)).to(self.device)

    def map(self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """`function(*item)` for every item, on the stream's threads, results in order."""

        def call(item: tuple[Any, ...]) -> Any:
            # Numbers that are not finite are looked for and named; numpy's own warnings about them would say less.
            with np.errstate(over="ignore", invalid="ignore"):
                return function(*item)

        if self.threads == 1:
            yield from map(call, items)
            return
        pool = ThreadPoolExecutor(self.threads)
        ahead: deque[Future[Any]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(call, item))
                if len(ahead) > 4 * self.threads:  # results that wait for their turn take memory
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def finite(array: np.ndarray) -> bool:
    """Whether every element is a finite number."""
    # The dot product is not finite when an element is not (or when it overflows, which the slower test then sorts out).
    flat = array.reshape(-1)
    return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(flat).all())


def _not_finite(key: str, place: str, array: np.ndarray, start: int) -> SelfposError:
    where = int(np.flatnonzero(~np.isfinite(array.reshape(-1)))[0])
    return SelfposError(
        f"{place}: tensor {key} holds {array.reshape(-1)[where]} at element {start + where}; nothing is merged from a damaged model"
    )
