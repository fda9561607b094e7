"""Task vectors as the search reads them, over and over: from their memory maps, or on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfpos.storage.numbers import to_float32
from selfpos.vectors.parts import spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfpos.storage.model_folder import ModelFolder
    from selfpos.vectors import TaskVector


class Streamed:
    """Vectors in their files, read in cache-sized chunks without memory of their own. For the CPU."""

    def __init__(self, base: ModelFolder, vectors: Sequence[TaskVector]) -> None:
        self.base, self.vectors = base, vectors

    def merge_into(self, key: str, coefficients: Sequence[float], out: Tensor) -> None:
        """Write θ0 + Σ c_i V_i to `out`, in its dtype."""
        entry, raw = self.base.tensors[key], self.base.raw(key)
        flat = out.detach().view(-1).numpy()
        readers = [
            (vector.reader(key), c)
            for vector, c in zip(self.vectors, coefficients, strict=True)
            if c != 0 and key in vector.parts
        ]
        for start, stop in spans(entry.shape):
            weights = to_float32(raw[start:stop], entry.dtype)
            merged = flat[start:stop]
            merged[:] = weights
            for read, c in readers:
                merged += np.multiply(read(start, stop, weights), c, dtype=flat.dtype)

    def products(self, key: str, gradient: Tensor) -> Tensor:
        """<gradient, V_i> of every vector, (N,) float64 on the gradient's device."""
        entry, raw = self.base.tensors[key], self.base.raw(key)
        flat = gradient.reshape(-1).numpy()
        sums = np.zeros(len(self.vectors))
        readers = [(i, vector.reader(key)) for i, vector in enumerate(self.vectors) if key in vector.parts]
        for start, stop in nonzero_ranges(flat.reshape(gradient.shape)):
            weights = to_float32(raw[start:stop], entry.dtype)
            for i, read in readers:
                delta = read(start, stop, weights).astype(flat.dtype, copy=False)
                sums[i] += np.dot(flat[start:stop], delta)
        return torch.from_numpy(sums)


def nonzero_ranges(gradient: NDArray) -> list[tuple[int, int]]:
    """Flat ranges that hold all of `gradient` that is not zero: a batch reaches few rows of an embedding."""
    shape = gradient.shape
    if len(shape) >= 2 and gradient.size >= 1 << 20:
        rows = np.flatnonzero(gradient.any(axis=tuple(range(1, len(shape)))))
        if 4 * len(rows) <= shape[0]:  # of more rows, reading all of the tensor in order is faster
            width = gradient.size // shape[0]
            runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
            return [(int(run[0]) * width, (int(run[-1]) + 1) * width) for run in runs if len(run)]
    return list(spans(shape))


class Resident:
    """Base and vectors kept on the device, the vectors in `dtype`: N + 1 models of memory, for speed."""

    def __init__(
        self,
        base: ModelFolder,
        vectors: Sequence[TaskVector],
        keys: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._base = {key: base.read(key).to(device, torch.float32) for key in keys}
        self._deltas = {
            key: torch.stack([vector.delta(key).reshape(-1).to(device, dtype) for vector in vectors])
            for key in keys
        }

    def merge_into(self, key: str, coefficients: Sequence[float], out: Tensor) -> None:
        """As of Streamed."""
        merged = self._base[key].to(out.dtype, copy=True)
        flat = merged.view(-1)
        for delta, c in zip(self._deltas[key], coefficients, strict=True):
            if c != 0:
                flat.add_(delta.to(flat.dtype), alpha=c)
        out.copy_(merged)

    def products(self, key: str, gradient: Tensor) -> Tensor:
        """As of Streamed."""
        flat = gradient.reshape(-1)
        return torch.stack([torch.dot(flat, delta.to(flat.dtype)) for delta in self._deltas[key]]).double()


def open_deltas(
    base: ModelFolder, vectors: Sequence[TaskVector], keys: Sequence[str], device: torch.device, where: str
) -> Streamed | Resident:
    """`where`: `disk` streams (CPU only), `float32` and `bf16` keep the vectors on the device.

    `auto` is disk on the CPU and bf16 on a GPU.
    """
    if where == "disk" or (where == "auto" and device.type == "cpu"):
        return Streamed(base, vectors)
    return Resident(base, vectors, keys, device, torch.float32 if where == "float32" else torch.bfloat16)
