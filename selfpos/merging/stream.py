"""Base and vectors as a stream of chunks: what statistics passes and kernels see."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.merging.method import Chunking, Method
from selfpos.merging.settings import Settings
from selfpos.storage.model_folder import ModelFolder, raw_tensor
from selfpos.storage.numbers import to_float32
from selfpos.storage.tensor_file import TensorEntry, read_header
from selfpos.vectors import TaskVector
from selfpos.vectors.names import is_linear_map
from selfpos.vectors.parts import CHUNK, Dense, Reader, spans

Array = Any  # a float32 numpy array, or a torch tensor on an accelerator; kernels use what both have
Ranges = list[tuple[int, int]]

TASK = 16 * CHUNK  # elements that one thread takes at a time
ON_DEVICE = 64  # chunks are so many times larger on an accelerator: there the transfer costs, not the cache
LARGE_BLOCK = 1 << 24  # bytes, half of what glibc takes for the largest block; more than any chunk needs


def array_module(array: Array) -> Any:
    """numpy or torch, whichever `array` is from: kernels use names that both have."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


@dataclass(frozen=True)
class ProbeStatistics:
    """Data statistics of one vector (Fisher information, activations' products), by tensor key."""

    entries: Mapping[str, TensorEntry]
    maps: dict[Path, np.ndarray] = field(default_factory=dict, repr=False)

    def read(self, key: str, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
        """For elements start to stop: that range of statistics of the tensor's shape (flat), others whole."""
        entry = self.entries[key]
        raw = raw_tensor(entry, self.maps)
        if entry.shape != shape:
            return to_float32(raw, entry.dtype).reshape(entry.shape)
        return to_float32(raw[start:stop], entry.dtype)


def open_statistics(
    method: Method, files: Mapping[str, Sequence[Path]], count: int
) -> dict[str, list[ProbeStatistics]]:
    """Open what `method` needs. Raises SelfposError when something is missing, or given without need."""
    require_statistics(method, files, count)
    return {name: [ProbeStatistics(read_header(file)[0]) for file in files[name]] for name in method.probe}


def require_statistics(method: Method, statistics: Mapping[str, Sequence[Any]], count: int) -> None:
    """Raise SelfposError unless exactly what `method` needs is given."""
    for name in statistics:
        if name not in method.probe:
            raise SelfposError(f"method {method.name} has no use for the statistics '{name}'")
    for name in method.probe:
        if (actual := len(statistics.get(name, ()))) != count:
            raise SelfposError(
                f"method {method.name} needs the statistics '{name}' of each of the {count} vectors, found "
                f"{actual}"
            )


@dataclass(frozen=True)
class ReadOnAccess(Sequence[Array]):
    """Arrays that are read each time they are accessed: a loop over them holds one at a time."""

    read: Callable[[int], Array]
    length: int

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Array]:
        return map(self.read, range(self.length))

    def __getitem__(self, index: Any) -> Any:
        chosen = range(self.length)[index]
        return self.read(chosen) if isinstance(chosen, int) else [self.read(number) for number in chosen]


@dataclass(slots=True)
class Chunk:
    """A range of one tensor: flat for chunking 'element', (rows, columns) for 'row'.

    For 'matrix' it is the whole matrix of a linear map, or a flat range of another tensor. `statistics` is
    what the method's statistics pass found for this tensor; `probe[name]` holds the data statistics of each
    vector for it, where all have them.
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
        """Random numbers in [0, 1) of the chunk's shape for vector `index`, the same for the same seed."""
        words = np.random.SeedSequence([self.seed, zlib.crc32(self.key.encode()), index, self.start])
        values = np.random.Generator(np.random.SFC64(words)).random(tuple(self.base.shape), dtype=np.float32)
        if isinstance(self.base, np.ndarray):
            return values
        return array_module(self.base).from_numpy(values).to(self.base.device)


@dataclass(frozen=True)
class Stream:
    """Base and vectors at the tensors `keys`.

    tied: the second name of a tensor that is stored twice → its first. on_access: the vectors of every chunk
    are read as a kernel loops over them, which leaves more of a core's cache to each. checked: numbers that
    are not finite are refused; without it the reader must find them in the result.
    """

    base: ModelFolder
    vectors: list[TaskVector]
    keys: tuple[str, ...]
    settings: Settings
    chunking: Chunking = "element"
    on_access: bool = False
    checked: bool = True
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    tied: Mapping[str, str] = field(default_factory=dict)
    statistics: Mapping[str, list[ProbeStatistics]] = field(default_factory=dict)
    advance: Callable[[int], None] = lambda elements: None

    def tasks(self, keys: Iterable[str] | None = None) -> Iterator[tuple[str, Ranges]]:
        """Each tensor cut into (key, ranges) of about TASK elements; ranges are chunks."""
        for key in self.keys if keys is None else keys:
            ranges: Ranges = []
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
        if self._whole(key):
            return iter([(0, math.prod(shape))])
        size = CHUNK if self.device == "cpu" else CHUNK * ON_DEVICE
        if self.chunking == "row":
            size = max(size, math.prod(shape[1:] if len(shape) > 1 else shape))
        return spans(shape, size)

    def chunks(self, key: str, ranges: Iterable[tuple[int, int]] | None = None) -> Iterator[Chunk]:
        """Read the chunks of a tensor, or some of them. Raises SelfposError for numbers not finite."""
        key = self.tied.get(key, key)
        entry = self.base.tensors[key]
        raw = self.base.raw(key)
        readers = [vector.reader(key) for vector in self.vectors]
        weights = self.settings.weights(key)
        for start, stop in self.ranges(key) if ranges is None else ranges:
            base = to_float32(raw[start:stop], entry.dtype)
            if self.checked and not finite(base):
                raise _not_finite(key, str(entry.file), base, start)
            lazy = ReadOnAccess(partial(self._read, key, start, stop, base, readers), len(readers))
            vectors: Sequence[Array] = lazy if self.on_access or self._whole(key) else list(lazy)
            probe = self._probe(key, start, stop)
            yield Chunk(key, start, self._shaped(key, base), vectors, weights, self.seed, probe=probe)
            self.advance((stop - start) * (1 + len(readers)))

    def _whole(self, key: str) -> bool:
        return self.chunking == "matrix" and is_linear_map(key, self.base.tensors[key].shape)

    def _read(
        self, key: str, start: int, stop: int, base: np.ndarray, readers: list[Reader], index: int
    ) -> Array:
        values = readers[index](start, stop, base)
        if self.checked and not finite(values):
            part, source = self.vectors[index].parts.get(key), self.vectors[index].source
            raise _not_finite(key, str(part.entry.file if isinstance(part, Dense) else source), values, start)
        return self._shaped(key, values)

    def _probe(self, key: str, start: int, stop: int) -> dict[str, Sequence[Array]]:
        shape = self.base.tensors[key].shape

        def read(files: list[ProbeStatistics], index: int) -> Array:
            array = files[index].read(key, shape, start, stop)
            return self._shaped(key, array) if array.size == stop - start else self._on_device(array)

        return {
            name: ReadOnAccess(partial(read, files), len(files))
            for name, files in self.statistics.items()
            if all(key in file.entries for file in files)
        }

    def _shaped(self, key: str, array: np.ndarray) -> Array:
        shape = self.base.tensors[key].shape
        if self.chunking == "row":
            array = array.reshape(-1, math.prod(shape[1:])) if len(shape) > 1 else array.reshape(1, -1)
        elif self._whole(key):
            array = array.reshape(shape)
        return self._on_device(array)

    def _on_device(self, array: np.ndarray) -> Array:
        if self.device == "cpu":
            return array
        import torch

        return torch.from_numpy(np.array(array)).to(self.device)

    def map(self, function: Callable[..., Any], items: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """`function(*item)` for every item, on the stream's threads, results in order."""
        _keep_freed_memory()

        def call(item: tuple[Any, ...]) -> Any:
            # Numbers that are not finite are found and named elsewhere; numpy's warnings would say less.
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
                if len(ahead) > 4 * self.threads:  # waiting results take memory
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def totals(
        self, measure: Callable[[Iterator[Chunk]], np.ndarray], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Per tensor: the sum of `measure(chunks)`, float64 arrays of `shape`, over its tasks."""

        def of_task(key: str, ranges: Ranges) -> np.ndarray:
            return measure(self.chunks(key, ranges))

        totals = {key: np.zeros(shape) for key in self.keys}
        tasks = list(self.tasks())
        for (key, _), part in zip(tasks, self.map(of_task, tasks), strict=True):
            totals[key] += part
        return totals


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of freed chunks for the next ones.

    glibc gives the system back what lies free above twice the largest block that was freed so far, and the
    system clears every page that it hands out again: three times the cost of the arithmetic. A large block is
    freed here that is never touched, so that it takes no memory.
    """
    np.empty(LARGE_BLOCK, np.uint8)


def finite(array: np.ndarray) -> bool:
    """Whether every element is a finite number."""
    # The dot product is not finite when an element is not, or when it overflows; the slower test tells which.
    flat = array.reshape(-1)
    return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(flat).all())


def _not_finite(key: str, file: str, array: np.ndarray, start: int) -> SelfposError:
    flat = array.reshape(-1)
    index = int(np.flatnonzero(~np.isfinite(flat))[0])
    return SelfposError(
        f"{file}: tensor {key} holds {flat[index]} at element {start + index}; nothing is merged from a "
        "damaged model"
    )
