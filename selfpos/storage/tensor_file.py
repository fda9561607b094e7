"""safetensors files: the header read and checked without reading weights, and a writer that needs no more memory than one piece of a tensor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.storage.numbers import MERGEABLE, STORED

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: `offset` is the first byte in `file`, `key` its name within the whole model, `name` within the file."""

    key: str
    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def mergeable(self) -> bool:
        """Whether it is a tensor of floats that are weights, not a buffer of integers."""
        return self.dtype in MERGEABLE


def read_header(file: Path, prefix: str = "") -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The entries of a safetensors file by key (`prefix` + name), in the order of their bytes, and its metadata. Raises SelfposError when it is torn."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > MAX_HEADER or 8 + length > size:
            raise SelfposError(
                f"{file} is not a whole safetensors file: its header does not fit in its {size} bytes; fetch or write it again"
            )
        try:
            header = json.loads(handle.read(length))
            metadata = header.pop("__metadata__", None) or {}
            spans = {name: _span(item) for name, item in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SelfposError(
                f"{file} is not a safetensors file: its header cannot be read; fetch or write it again"
            ) from None
    entries: dict[str, TensorEntry] = {}
    position = 0
    for name, (dtype, shape, start, stop) in sorted(spans.items(), key=lambda item: (item[1][2], item[1][3])):
        if dtype not in STORED:
            raise SelfposError(
                f"{file}: tensor {name} has number format {dtype}; expected one of {', '.join(STORED)}"
            )
        if start != position or stop - start != math.prod(shape) * STORED[dtype].itemsize:
            raise SelfposError(
                f"{file}: tensor {name} of shape {list(shape)} does not match the {stop - start} bytes its header gives it"
            )
        position = stop
        entries[prefix + name] = TensorEntry(
            prefix + name, name, file, dtype, shape, 8 + length + start, stop - start
        )
    if 8 + length + position != size:
        state = "truncated" if 8 + length + position > size else "longer than its header says"
        raise SelfposError(
            f"{file} is {state}: expected {8 + length + position} bytes, found {size}; fetch or write it again"
        )
    return entries, metadata


def _span(item: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Format, shape, and first and last byte of a tensor, as its header has them. Raises TypeError or ValueError where they are none."""
    dtype, shape, (start, stop) = item["dtype"], tuple(item["shape"]), item["data_offsets"]
    if not isinstance(dtype, str) or not all(isinstance(number, int) for number in (*shape, start, stop)):
        raise TypeError
    return dtype, shape, start, stop


class TensorFileWriter:
    """Write a safetensors file whose tensors are all known beforehand: the header first, then any piece of any tensor in any order.

    `tensors` maps name -> (dtype, shape). Pieces may be written from several threads. `close` raises nothing about missing pieces:
    the caller decides what is whole.
    """

    def __init__(
        self, file: Path, tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]
    ) -> None:
        # Wider formats first: every tensor then starts at a multiple of its item size, as the safetensors library lays them out.
        order = sorted(tensors, key=lambda name: -STORED[tensors[name][0]].itemsize)
        header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
        self.starts: dict[str, int] = {}
        position = 0
        for name in order:
            dtype, shape = tensors[name]
            nbytes = math.prod(shape) * STORED[dtype].itemsize
            header[name] = {
                "dtype": dtype,
                "shape": list(shape),
                "data_offsets": [position, position + nbytes],
            }
            self.starts[name] = position
            position += nbytes
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._first = 8 + len(text)
        self.nbytes = self._first + position
        self.file = file
        # Opened without truncation, so that a resumed merge keeps the pieces written before.
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(self._fd, len(text).to_bytes(8, "little") + text, 0)
        os.ftruncate(self._fd, self.nbytes)

    def write(self, name: str, piece: np.ndarray, offset: int = 0) -> None:
        """Write the stored bits `piece` at byte `offset` of tensor `name`."""
        view = memoryview(np.ascontiguousarray(piece).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        position = self._first + self.starts[name] + offset
        while view:
            done = os.pwrite(self._fd, view, position)
            view, position = view[done:], position + done

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)
