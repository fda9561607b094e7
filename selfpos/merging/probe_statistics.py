"""Statistics gathered from data beforehand (Fisher information, activations' products …), one safetensors file per vector, read beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.merging.registry import Method
from selfpos.storage.model_folder import raw_tensor
from selfpos.storage.numbers import to_float32
from selfpos.storage.tensor_file import TensorEntry, read_header


@dataclass(frozen=True)
class ProbeStatistics:
    """One vector's statistics, by the keys of the tensors they belong to."""

    entries: Mapping[str, TensorEntry]
    maps: dict[Path, np.ndarray] = field(default_factory=dict, repr=False)

    def read(self, key: str, shape: tuple[int, ...], start: int, stop: int) -> np.ndarray:
        """For elements start to stop of tensor `key`: the same range, flat, of statistics of its shape; others whole."""
        entry = self.entries[key]
        raw = raw_tensor(entry, self.maps)
        if entry.shape != shape:
            return to_float32(raw, entry.dtype).reshape(entry.shape)
        return to_float32(raw[start:stop], entry.dtype)


def open_statistics(
    method: Method, files: Mapping[str, Sequence[Path]], count: int
) -> dict[str, list[ProbeStatistics]]:
    """Open what `method` needs. Raises SelfposError when something is missing, or given without need."""
    for name in files:
        if name not in method.probe:
            raise SelfposError(f"method {method.name} has no use for the statistics '{name}'")
    require_statistics(method, files, count)
    return {name: [ProbeStatistics(read_header(file)[0]) for file in files[name]] for name in method.probe}


def require_statistics(method: Method, given: Mapping[str, Sequence[Any]], count: int) -> None:
    """Raise SelfposError unless all that `method` needs is there."""
    for name in method.probe:
        found = len(given.get(name, ()))
        if found != count:
            raise SelfposError(
                f"method {method.name} needs the statistics '{name}' of each of the {count} vectors, found {found}"
            )
