"""Every method once more, in float64, on whole tensors, written from the papers' formulae: what the engine is
checked against.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from tests.helpers.spectral import iso_c, iso_cts, spectral, tsv_m, wudi

State = dict[str, np.ndarray]
Uniform = Callable[[str, int, tuple[int, ...]], np.ndarray]


def load(folder: Path) -> State:
    """Every tensor of floats of a model folder, by key, in float64."""
    return {
        (f"{file.parent.relative_to(folder).as_posix()}/" if file.parent != folder else "")
        + name: value.double().numpy()
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
        if value.is_floating_point()
    }


def flat(state: State) -> np.ndarray:
    return np.concatenate([state[key].ravel() for key in state])


def unflat(values: np.ndarray, like: State) -> State:
    state, start = {}, 0
    for key, value in like.items():
        state[key] = values[start : start + value.size].reshape(value.shape)
        start += value.size
    return state


def per_tensor(function: Callable[..., np.ndarray]) -> Callable[..., State]:
    """A method that sees one tensor at a time: (base, [V_i], weights, **params) of that tensor, all flat."""

    def merged(base: State, vectors: list[State], weights: list[float] | None, **params: Any) -> State:
        result = {}
        for key, value in base.items():
            rows = [v[key].ravel() for v in vectors]
            flat = function(value.ravel(), rows, weights or [1.0] * len(vectors), **params)
            result[key] = flat.reshape(value.shape)
        return result

    return merged


def whole(function: Callable[..., np.ndarray]) -> Callable[..., State]:
    """A method that sees the whole model as one vector."""

    def merged(base: State, vectors: list[State], weights: list[float] | None, **params: Any) -> State:
        return unflat(function([flat(v) for v in vectors], weights or [1.0] * len(vectors), **params), base)

    return merged


def combined(weights: Any, rows: list[np.ndarray]) -> np.ndarray:
    return sum(w * row for w, row in zip(weights, rows, strict=True))


def average(base: State, vectors: list[State], weights: None) -> State:
    return {key: np.mean([v[key] for v in vectors], axis=0) for key in base}


def linear(base: State, vectors: list[State], weights: list[float] | None) -> State:
    weights = weights or [1 / len(vectors)] * len(vectors)
    return {key: combined(weights, [v[key] for v in vectors]) for key in base}


def task_arithmetic(
    base: State, vectors: list[State], weights: list[float] | None, scale: float = 1.0
) -> State:
    return {
        key: scale * value for key, value in linear(base, vectors, weights or [1.0] * len(vectors)).items()
    }


def angle(first: np.ndarray, second: np.ndarray) -> float:
    a, b = np.linalg.norm(first), np.linalg.norm(second)
    if a == 0 or b == 0:
        return 0.0
    # accurate for small angles too, unlike the arc cosine
    return float(
        2 * np.arctan2(np.linalg.norm(first / a - second / b), np.linalg.norm(first / a + second / b))
    )


def sphere(first: np.ndarray, second: np.ndarray, t: float) -> np.ndarray:
    alpha = angle(first, second)
    if np.sin(alpha) < 1e-6:
        return (1 - t) * first + t * second
    return (np.sin((1 - t) * alpha) * first + np.sin(t * alpha) * second) / np.sin(alpha)


def slerp_chain(vectors: list[np.ndarray], a: list[float]) -> np.ndarray:
    merged = vectors[0]
    for n in range(1, len(vectors)):
        mean = float(np.mean(a[:n]))
        merged = sphere(
            merged, vectors[n], mean / (mean + a[n])
        )  # as printed: V_n's factor is sin(a_earlier/(…)·α)
    return merged


def tensor_slerp(
    base: np.ndarray,
    vectors: list[np.ndarray],
    weights: list[float],
    t: float = 0.5,
    linear_above: float = 0.9995,
) -> np.ndarray:
    first, second = (base, base + vectors[0]) if len(vectors) == 1 else (base + vectors[0], base + vectors[1])
    if abs(np.cos(angle(first, second))) > linear_above:
        return (1 - t) * first + t * second - base
    return sphere(first, second, t) - base


def points(base: np.ndarray, vectors: list[np.ndarray], space: str) -> list[np.ndarray]:
    return vectors if space == "vectors" else [base + v for v in vectors]


def nuslerp(
    base: np.ndarray, vectors: list[np.ndarray], weights: list[float], space: str = "vectors"
) -> np.ndarray:
    merged = sphere(*points(base, vectors, space), weights[1] / sum(weights))
    return merged - (base if space == "models" else 0)


def multi_slerp(
    base: np.ndarray,
    vectors: list[np.ndarray],
    weights: list[float],
    space: str = "vectors",
    normalize: bool = True,
) -> np.ndarray:
    rows = points(base, vectors, space)
    w = np.array(weights) / (sum(weights) if normalize else 1)
    norms = np.array([np.linalg.norm(row) for row in rows])
    if not norms.any():
        return np.zeros_like(base)
    units = [row / n if n else row for row, n in zip(rows, norms, strict=True)]
    mean = combined(w, units)
    if np.linalg.norm(mean) < 1e-6:
        return combined(w, rows) - (base if space == "models" else 0)
    mean = mean / np.linalg.norm(mean)
    tangent = combined(w, [u - (u @ mean) * mean for u in units])
    size = np.linalg.norm(tangent)
    result = np.cos(size) * mean + (np.sin(size) / size * tangent if size else 0)
    return result * float(w @ norms) - (base if space == "models" else 0)


def karcher(
    base: np.ndarray, vectors: list[np.ndarray], weights: list[float], space: str = "vectors"
) -> np.ndarray:
    rows = points(base, vectors, space)
    w = np.array(weights) / sum(weights)
    norms = np.array([np.linalg.norm(row) for row in rows])
    if not norms.any():
        return np.zeros_like(base)
    units = [row / n for row, n in zip(rows, norms, strict=True) if n]
    alive = w[norms > 0] / w[norms > 0].sum()
    mean = combined(alive, units)
    if np.linalg.norm(mean) < 1e-6:
        return combined(w, rows) - (base if space == "models" else 0)
    mean /= np.linalg.norm(mean)
    for _ in range(300):
        step = np.zeros_like(mean)
        for x, u in zip(alive, units, strict=True):
            theta = np.arccos(np.clip(u @ mean, -1, 1))
            if theta > 3.1415:
                continue
            step += x * (theta / np.sin(theta) if theta > 1e-9 else 1) * (u - (u @ mean) * mean)
        size = np.linalg.norm(step)
        if size < 1e-13:
            break
        mean = np.cos(size) * mean + np.sin(size) * step / size
        mean /= np.linalg.norm(mean)
    return mean * float(w @ norms) - (base if space == "models" else 0)


def model_stock(base: np.ndarray, vectors: list[np.ndarray], weights: list[float]) -> np.ndarray:
    n = len(vectors)
    cosines = []
    for i in range(n):
        for j in range(i):
            size = np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
            cosines.append(vectors[i] @ vectors[j] / size if size else 0.0)
    c = max(0.0, np.mean(cosines))  # the paper has no wider angles than right ones; mergekit goes on below 0
    t = n * c / (1 + (n - 1) * c)
    return t * np.mean(vectors, axis=0)


def norm_equalized(
    base: State, vectors: list[State], weights: list[float] | None, exponent: float = 1.0, scale: float = 1.0
) -> State:
    norms = [np.linalg.norm(flat(v)) for v in vectors]
    weights = weights or [1 / len(vectors)] * len(vectors)
    c = [scale * w * (np.mean(norms) / n) ** exponent for w, n in zip(weights, norms, strict=True)]
    return linear(base, vectors, c)


def nearswap(base: np.ndarray, vectors: list[np.ndarray], weights: list[float], t: float) -> np.ndarray:
    (v,) = vectors
    return v * np.minimum(1, np.divide(t, np.abs(v), out=np.ones_like(v), where=v != 0))


def trim(vector: np.ndarray, density: float) -> np.ndarray:
    count = int(np.ceil(density * vector.size - 1e-9))
    if count == 0:
        return np.zeros_like(vector)
    limit = np.sort(np.abs(vector))[vector.size - count]
    return np.where(np.abs(vector) >= limit, vector, 0)


def join(vectors: list[np.ndarray], weights: list[float], normalize: bool = True) -> np.ndarray:
    rows = np.array(vectors) * np.array(weights).reshape(-1, *[1] * vectors[0].ndim)
    sign = np.sign(rows.sum(0))
    agrees = (np.sign(rows) == sign) & (rows != 0)
    total = (rows * agrees).sum(0)
    if not normalize:
        return total
    mass = (agrees * np.abs(np.array(weights)).reshape(-1, *[1] * vectors[0].ndim)).sum(0)
    return np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)


def spread(value: Any, count: int) -> list[float]:
    return list(value) if isinstance(value, list) else [value] * count


def ties(
    base: State,
    vectors: list[State],
    weights: list[float] | None,
    density: Any = 0.2,
    scale: float = 1.0,
    scope: str = "model",
    normalize: bool = True,
) -> State:
    shares = spread(density, len(vectors))

    def merged(rows: list[np.ndarray], w: list[float]) -> np.ndarray:
        return scale * join([trim(row, share) for row, share in zip(rows, shares, strict=True)], w, normalize)

    if scope == "model":
        return whole(merged)(base, vectors, weights)
    return per_tensor(lambda _, rows, w: merged(rows, w))(base, vectors, weights)


def add(vectors: list[np.ndarray], weights: list[float], normalize: bool) -> np.ndarray:
    total = combined(weights, vectors)
    return total / sum(weights) if normalize and sum(weights) else total


def dropped(kept: Callable[..., np.ndarray]) -> Callable[..., Callable[..., State]]:
    """DARE and DELLA: what is `kept` of each vector (given random numbers, index, count), joined or added."""

    def method(joined: bool) -> Callable[..., State]:
        def merged(
            base: State, vectors: list[State], weights: list[float] | None, uniform: Uniform, **params: Any
        ) -> State:
            merge, count = join if joined else add, len(vectors)
            weights = weights or [1.0] * count
            state = {}
            for key, value in base.items():
                rows = []
                for index, vector in enumerate(vectors):
                    rows.append(kept(vector[key], uniform(key, index, value.shape), index, count, **params))
                total = merge(rows, weights, params.get("normalize", joined))
                state[key] = params.get("scale", 1.0) * total
            return state

        return merged

    return method


def dare(
    vector: np.ndarray, random: np.ndarray, index: int, count: int,
    density: Any = 0.5, rescale: bool = True, **_: Any,
) -> np.ndarray:  # fmt: skip
    p = spread(density, count)[index]
    keep = random < p if p < 1 else np.ones(vector.shape, bool)
    return vector * keep / (p if rescale and p else 1)


def della(
    vector: np.ndarray, random: np.ndarray, index: int, count: int,
    density: Any = 0.5, epsilon: Any = 0.2, rescale: bool = True, **_: Any,
) -> np.ndarray:  # fmt: skip
    matrix = vector.reshape(vector.shape[0], -1) if vector.ndim > 1 else vector.reshape(1, -1)
    p, width, n = spread(density, count)[index], spread(epsilon, count)[index], matrix.shape[1]
    rank = np.full(matrix.shape, 0.5)
    if n > 1:
        rank = np.argsort(np.argsort(np.abs(matrix), axis=1, kind="stable"), axis=1) / (n - 1)
    chance = p + width * (rank - 0.5) if 0 < p < 1 else np.full(matrix.shape, p)
    keep = random.reshape(matrix.shape) < chance.astype(np.float32)
    return (matrix * keep / (chance if rescale and p else 1)).reshape(vector.shape)


def breadcrumbs(
    joined: bool, base: np.ndarray, vectors: list[np.ndarray], weights: list[float],
    density: Any = 0.9, gamma: Any = 0.01, scale: float = 1.0,
    normalize: bool | None = None,
) -> np.ndarray:  # fmt: skip
    rows = []
    for vector, share, top_share in zip(
        vectors, spread(density, len(vectors)), spread(gamma, len(vectors)), strict=True
    ):
        target = int(np.ceil(share * vector.size - 1e-9))
        top = min(int(top_share * vector.size + 1e-9), vector.size - target)
        order = np.argsort(-np.abs(vector), kind="stable")
        kept = np.zeros_like(vector)
        kept[order[top : top + target]] = vector[order[top : top + target]]
        rows.append(kept)
    return scale * (join if joined else add)(rows, weights, joined if normalize is None else normalize)


def sce(base: np.ndarray, vectors: list[np.ndarray], weights: list[float], select: float = 0.1) -> np.ndarray:
    rows = np.array(vectors)
    variance = rows.var(axis=0)
    count = int(np.ceil(select * variance.size - 1e-9))
    limit = np.sort(variance)[variance.size - count] if count else np.inf
    rows = rows * (variance >= limit * (1 - 1e-6))
    energy = (rows**2).sum(1)
    w = energy / energy.sum() if energy.sum() else np.full(len(rows), 1 / len(rows))
    sign = np.sign(rows.sum(0))
    agrees = (np.sign(rows) == sign) & (rows != 0)
    mass = (agrees * w[:, None]).sum(0)
    return np.divide((rows * agrees * w[:, None]).sum(0), mass, out=np.zeros_like(mass), where=mass > 0)


METHODS: dict[str, Callable[..., State]] = {
    "average": average,
    "linear": linear,
    "task-arithmetic": task_arithmetic,
    "slerp": whole(slerp_chain),
    "tensor-slerp": per_tensor(tensor_slerp),
    "nuslerp": per_tensor(nuslerp),
    "multi-slerp": per_tensor(multi_slerp),
    "karcher": per_tensor(karcher),
    "model-stock": per_tensor(model_stock),
    "norm-equalized": norm_equalized,
    "nearswap": per_tensor(nearswap),
    "ties": ties,
    "dare-linear": dropped(dare)(False),
    "dare-ties": dropped(dare)(True),
    "della-linear": dropped(della)(False),
    "della-ties": dropped(della)(True),
    "breadcrumbs": per_tensor(partial(breadcrumbs, False)),
    "breadcrumbs-ties": per_tensor(partial(breadcrumbs, True)),
    "sce": per_tensor(sce),
    "tsv-m": spectral(tsv_m),
    "iso-c": spectral(iso_c),
    "iso-cts": spectral(iso_cts),
    "wudi": spectral(wudi),
}
