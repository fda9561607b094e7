"""safetensors files: a header reader that reads no weights, and a writer for ranges of tensors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.console import log
from selfpos.errors import SelfposError, on_one_line, printable
from selfpos.storage.documents import parse_json
from selfpos.storage.numbers import MERGEABLE, STORED

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
AT_ONCE = 2**24  # bytes that are compared at a time


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor is: first byte (`offset`) in `file`; its `key` in the model, its `name` in the file.

    It may be some rows of what is stored: then `stored` is the whole's shape, and `first` the number of the
    elements before it.
    """

    key: str
    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    stored: tuple[int, ...] | None = None
    first: int = 0

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def mergeable(self) -> bool:
        """Whether it is a tensor of floats that are weights, not a buffer of integers."""
        return self.dtype in MERGEABLE

    @property
    def whole(self) -> tuple[int, ...]:
        """The shape of the tensor in the file."""
        return self.stored or self.shape

    def parts(self, keys: Sequence[str]) -> dict[str, TensorEntry]:
        """The tensor cut into equally many rows for each of `keys`.

        Raises SelfposError where its rows are not a multiple of them.
        """
        if len(keys) == 1:
            return {keys[0]: replace(self, key=keys[0])}
        if not self.shape or self.shape[0] % len(keys):
            raise SelfposError(
                f"{self.file}: tensor {self.name} of shape {list(self.shape)} cannot be cut into {len(keys)} "
                "equal parts; fetch the model again"
            )
        shape = (self.shape[0] // len(keys), *self.shape[1:])
        numel, nbytes = self.numel // len(keys), self.nbytes // len(keys)
        return {
            key: TensorEntry(
                *(key, self.name, self.file, self.dtype, shape, self.offset + index * nbytes, nbytes),
                *(self.shape, index * numel),
            )
            for index, key in enumerate(keys)
        }


def read_header(file: Path, prefix: str = "") -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The entries of a safetensors file by key (`prefix` + name), in the order of their bytes; its metadata.

    Raises SelfposError when the file is incomplete.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > MAX_HEADER or 8 + length > size:
            raise SelfposError(
                f"{file} is not a whole safetensors file: its header does not fit in its {size} bytes; fetch "
                "or write it again"
            )
        try:
            header = parse_json(handle.read(length))
            metadata = header.pop("__metadata__", None) or {}
            spans = {name: _span(item) for name, item in header.items()}
            if odd := next((name for name in spans if printable(name) != name), None):
                raise ValueError(f"the tensor name {printable(odd)!r} has controls in it")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f" ({error})" if isinstance(error, ValueError) and str(error) else ""
            raise SelfposError(
                f"{file} is not a safetensors file: its header cannot be read{why}; fetch or write it again"
            ) from None
    entries: dict[str, TensorEntry] = {}
    position = 0
    for name, (dtype, shape, start, stop) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if dtype not in STORED:
            formats = ", ".join(STORED)
            raise SelfposError(f"{file}: tensor {name} has number format {dtype}; expected one of {formats}")
        if start != position or stop - start != math.prod(shape) * STORED[dtype].itemsize:
            raise SelfposError(
                f"{file}: tensor {name} of shape {list(shape)} does not match the {stop - start} bytes in "
                "its header"
            )
        position = stop
        offset = 8 + length + start
        entries[prefix + name] = TensorEntry(prefix + name, name, file, dtype, shape, offset, stop - start)
    expected = 8 + length + position
    if expected != size:
        state = "truncated" if expected > size else "longer than its header says"
        raise SelfposError(
            f"{file} is {state}: expected {expected} bytes, found {size}; fetch or write it again"
        )
    _judge(file)
    return entries, metadata


def refuse_unlike_copies(
    entries: Mapping[str, TensorEntry], counted: Collection[str], before: Mapping[str, TensorEntry]
) -> None:
    """Raise SelfposError where a shard has a tensor that its index has in one `before`, with other values:
    transformers loads that of the last shard.
    """
    for key, entry in entries.items():
        first = before.get(key)
        if first is not None and entry.name not in counted and not _same_bytes(first, entry):
            raise unlike_copies(entry.name, first.file, entry.file)


def unlike_copies(name: str, listed: Path, last: Path) -> SelfposError:
    """What to say of the tensor `name`, which is in the shard `listed` and unlike it in the `last` one."""
    return SelfposError(
        f"{listed.parent}: tensor {name} is in {listed.name}, where the index has it, and with other values "
        f"in {last.name}, from which transformers loads it; load the model with its class and save it again"
    )


def _same_bytes(first: TensorEntry, second: TensorEntry) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    with first.file.open("rb") as mine, second.file.open("rb") as theirs:
        mine.seek(first.offset)
        theirs.seek(second.offset)
        sizes = (min(AT_ONCE, first.nbytes - start) for start in range(0, first.nbytes, AT_ONCE))
        return all(mine.read(size) == theirs.read(size) for size in sizes)


def _judge(file: Path) -> None:
    """Raise SelfposError where the safetensors library, of which others' tools are made, refuses `file`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except MemoryError:  # the library maps the file whole; what this reader checks must do
        log.info("%s is larger than the address space, so the safetensors library has not judged it", file)
    except SafetensorError as error:
        raise SelfposError(
            f"{file} is refused by the safetensors library ({on_one_line(error, 200)}); fetch or write it "
            "again"
        ) from None


def _span(item: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Format, shape, first and last byte of a header's tensor. Raises TypeError or ValueError."""
    dtype, shape, (start, stop) = item["dtype"], tuple(item["shape"]), item["data_offsets"]
    numbers = (*shape, start, stop)
    if not isinstance(dtype, str) or any(type(number) is not int or number < 0 for number in numbers):
        raise TypeError
    return dtype, shape, start, stop


class TensorFileWriter:
    """Write a safetensors file of known tensors: the header first, then any range of any tensor.

    `tensors` maps name -> (dtype, shape). Several threads may write. `close` does not check that everything
    was written.
    """

    def __init__(
        self, file: Path, tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]
    ) -> None:
        # Wider formats first, as the safetensors library does: every tensor starts at a multiple of its item
        # size.
        order = sorted(tensors, key=lambda name: -STORED[tensors[name][0]].itemsize)
        header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
        self.starts: dict[str, int] = {}
        position = 0
        for name in order:
            dtype, shape = tensors[name]
            nbytes = math.prod(shape) * STORED[dtype].itemsize
            offsets = [position, position + nbytes]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
            self.starts[name] = position
            position += nbytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._first = 8 + len(text)
        self.nbytes = self._first + position
        self.file = file
        # Opened without truncation: a resumed merge keeps what it wrote before.
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(self._fd, len(text).to_bytes(8, "little") + text, 0)
        os.ftruncate(self._fd, self.nbytes)

    def write(self, name: str, bits: np.ndarray, offset: int = 0) -> None:
        """Write the stored bits at byte `offset` of tensor `name`."""
        view = memoryview(np.ascontiguousarray(bits).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        position = self._first + self.starts[name] + offset
        while view:
            done = os.pwrite(self._fd, view, position)
            view, position = view[done:], position + done

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
