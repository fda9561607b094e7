"""Small merges to compare with the float64 references."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from selfpos.merging import merge
from selfpos.merging.stream import Chunk
from tests.helpers.folders import SHAPES, State, difference, make_folder, moved, random_state


def uniform(key: str, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """The random numbers that both the engine and the reference are given."""
    return np.random.default_rng([zlib.crc32(key.encode()), index]).random(shape, dtype=np.float32)


def known_numbers(chunk: Chunk, index: int) -> np.ndarray:
    shape = SHAPES[chunk.key]
    size = chunk.base.size
    return (
        uniform(chunk.key, index, shape)
        .reshape(-1)[chunk.start : chunk.start + size]
        .reshape(chunk.base.shape)
    )


def run(
    folder: Path,
    base: State,
    tuned: list[State],
    method: str,
    weights: Any = None,
    params: Any = None,
    **options: Any,
) -> State:
    """Merge through folders on disk; the merged V in float64."""
    place = make_folder(folder / "base", base)
    sources = [make_folder(folder / f"v{index}", state) for index, state in enumerate(tuned)]
    out = merge(place, sources, method, folder / "out", weights=weights, params=params, **options).out
    return difference(base, load_file(out / "model.safetensors"))


def models(seed: int, count: int, scale: float = 0.1) -> tuple[State, list[State]]:
    generator = np.random.default_rng(seed)
    base = random_state(generator)
    return base, [moved(base, random_state(generator, scale * (1 + index))) for index in range(count)]
