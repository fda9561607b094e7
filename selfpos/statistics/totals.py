"""Sums that grow in a safetensors file: memory-mapped, so that they need no memory of their own."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from selfpos.storage.atomic import flush
from selfpos.storage.tensor_file import TensorFileWriter, read_header

Totals = Mapping[str, np.ndarray]
"""Float32 arrays by tensor key, to be added to in place."""


@contextmanager
def totals(
    file: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> Iterator[Totals]:
    """Zeros of `shapes` to add to; the file appears when the block ends well. Raises OSError when the disk has no room for it, at once."""
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)  # what a killed process has added is not known
    try:
        TensorFileWriter(part, {key: ("F32", shape) for key, shape in shapes.items()}, metadata).close()
        with part.open("r+b") as handle:
            if hasattr(os, "posix_fallocate"):  # a map that finds the disk full kills the process
                os.posix_fallocate(handle.fileno(), 0, part.stat().st_size)
            mapped = mmap.mmap(handle.fileno(), 0)
        whole = np.frombuffer(mapped, np.uint8)
        yield {
            key: whole[entry.offset : entry.offset + entry.nbytes].view(np.float32).reshape(entry.shape)
            for key, entry in read_header(part)[0].items()
        }
        mapped.flush()
        flush(part)
        part.replace(file)
        flush(file.parent)
    finally:
        part.unlink(missing_ok=True)
