"""Every method once more, in float64 and without streaming, written from the papers' formulae: what the engine is checked against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.torch import load_file

State = dict[str, np.ndarray]


def load(folder: Path) -> State:
    """Every tensor of floats of a model folder, by key, in float64."""
    return {
        (f"{file.parent.relative_to(folder).as_posix()}/" if file.parent != folder else "") + name: value.double().numpy()
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
        if value.is_floating_point()
    }


def flat(state: State) -> np.ndarray:
    return np.concatenate([state[key].ravel() for key in state])


def unflat(values: np.ndarray, like: State) -> State:
    found, start = {}, 0
    for key, value in like.items():
        found[key] = values[start : start + value.size].reshape(value.shape)
        start += value.size
    return found


def slerp_two(first: np.ndarray, second: np.ndarray, a: float, b: float) -> np.ndarray:
    alpha = np.arccos(np.clip(first @ second / np.linalg.norm(first) / np.linalg.norm(second), -1, 1))
    return (np.sin(b / (a + b) * alpha) * first + np.sin(a / (a + b) * alpha) * second) / np.sin(alpha)


def slerp(vectors: list[np.ndarray], a: list[float]) -> np.ndarray:
    merged = vectors[0]
    for n in range(1, len(vectors)):
        merged = slerp_two(merged, vectors[n], float(np.mean(a[:n])), a[n])
    return merged


def trim(vector: np.ndarray, density: float) -> np.ndarray:
    count = int(np.ceil(density * vector.size - 1e-9))
    if count == 0:
        return np.zeros_like(vector)
    limit = np.sort(np.abs(vector))[vector.size - count]
    return np.where(np.abs(vector) >= limit, vector, 0)


def join(vectors: list[np.ndarray], weights: list[float], normalize: bool = True) -> np.ndarray:
    rows = np.array(vectors) * np.array(weights)[:, None]
    sign = np.sign(rows.sum(0))
    agrees = (np.sign(rows) == sign) & (rows != 0)
    total = (rows * agrees).sum(0)
    if not normalize:
        return total
    mass = (agrees * np.abs(np.array(weights))[:, None]).sum(0)
    return np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)


def ties(vectors: list[np.ndarray], weights: list[float], density: float = 0.2, scale: float = 1.0) -> np.ndarray:
    return scale * join([trim(vector, density) for vector in vectors], weights)
