"""Every method once more, in float64, on whole tensors, written from the papers' formulae: what the engine is
checked against.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

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
    found, start = {}, 0
    for key, value in like.items():
        found[key] = values[start : start + value.size].reshape(value.shape)
        start += value.size
    return found


def per_tensor(function: Callable[..., np.ndarray]) -> Callable[..., State]:
    """A method that sees one tensor at a time: (base, [V_i], weights, **params) of that tensor, all flat."""

    def merged(base: State, vectors: list[State], weights: list[float] | None, **params: Any) -> State:
        found = {}
        for key, value in base.items():
            found[key] = function(
                value.ravel(), [v[key].ravel() for v in vectors], weights or [1.0] * len(vectors), **params
            ).reshape(value.shape)
        return found

    return merged


def whole(function: Callable[..., np.ndarray]) -> Callable[..., State]:
    """A method that sees the whole model as one vector."""

    def merged(base: State, vectors: list[State], weights: list[float] | None, **params: Any) -> State:
        return unflat(function([flat(v) for v in vectors], weights or [1.0] * len(vectors), **params), base)

    return merged


def average(base: State, vectors: list[State], weights: None) -> State:
    return {key: np.mean([v[key] for v in vectors], axis=0) for key in base}


def linear(base: State, vectors: list[State], weights: list[float] | None) -> State:
    weights = weights or [1 / len(vectors)] * len(vectors)
    return {key: sum(w * v[key] for w, v in zip(weights, vectors, strict=True)) for key in base}


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


def nuslerp(
    base: np.ndarray, vectors: list[np.ndarray], weights: list[float], space: str = "vectors"
) -> np.ndarray:
    t = weights[1] / sum(weights)
    return (
        sphere(*vectors, t) if space == "vectors" else sphere(base + vectors[0], base + vectors[1], t) - base
    )


def points(base: np.ndarray, vectors: list[np.ndarray], space: str) -> list[np.ndarray]:
    return vectors if space == "vectors" else [base + v for v in vectors]


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
    mean = sum(x * u for x, u in zip(w, units, strict=True))
    if np.linalg.norm(mean) < 1e-6:
        return sum(x * row for x, row in zip(w, rows, strict=True)) - (base if space == "models" else 0)
    mean = mean / np.linalg.norm(mean)
    tangent = sum(x * (u - (u @ mean) * mean) for x, u in zip(w, units, strict=True))
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
    mean = sum(x * u for x, u in zip(alive, units, strict=True))
    if np.linalg.norm(mean) < 1e-6:
        return sum(x * row for x, row in zip(w, rows, strict=True)) - (base if space == "models" else 0)
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
    total = sum(w * v for w, v in zip(weights, vectors, strict=True))
    return total / sum(weights) if normalize and sum(weights) else total


def dare(
    joined: bool,
    base: State,
    vectors: list[State],
    weights: list[float] | None,
    uniform: Uniform,
    **params: Any,
) -> State:
    chances = spread(params.get("density", 0.5), len(vectors))
    found = {}
    for key, value in base.items():
        rows = []
        for index, (vector, p) in enumerate(zip(vectors, chances, strict=True)):
            keep = uniform(key, index, value.shape) < p if p < 1 else np.ones(value.shape, bool)
            rows.append(vector[key] * keep / (p if params.get("rescale", True) and p else 1))
        found[key] = params.get("scale", 1.0) * (join if joined else add)(
            rows, weights or [1.0] * len(vectors), params.get("normalize", joined)
        )
    return found


def della(
    joined: bool,
    base: State,
    vectors: list[State],
    weights: list[float] | None,
    uniform: Uniform,
    **params: Any,
) -> State:
    found = {}
    for key, value in base.items():
        rows = []
        for index, vector in enumerate(vectors):
            matrix = vector[key].reshape(value.shape[0], -1) if value.ndim > 1 else vector[key].reshape(1, -1)
            density = spread(params.get("density", 0.5), len(vectors))[index]
            epsilon = spread(params.get("epsilon", 0.2), len(vectors))[index]
            n = matrix.shape[1]
            rank = (
                np.argsort(np.argsort(np.abs(matrix), axis=1, kind="stable"), axis=1) / (n - 1)
                if n > 1
                else np.full(matrix.shape, 0.5)
            )
            chance = density + epsilon * (rank - 0.5) if 0 < density < 1 else np.full(matrix.shape, density)
            keep = uniform(key, index, value.shape).reshape(matrix.shape) < chance.astype(np.float32)
            kept = matrix * keep / (chance if params.get("rescale", True) and density else 1)
            rows.append(kept.reshape(value.shape))
        found[key] = params.get("scale", 1.0) * (join if joined else add)(
            rows, weights or [1.0] * len(vectors), params.get("normalize", joined)
        )
    return found


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


def linear_map(key: str, value: np.ndarray) -> bool:
    return value.ndim == 2 and min(value.shape) > 1 and "embed" not in key


def spectral(function: Callable[..., np.ndarray]) -> Callable[..., State]:
    """Methods on whole matrices; all else takes the mean times the scale."""

    def merged(base: State, vectors: list[State], weights: None, **params: Any) -> State:
        scale = params.get("scale", 1.0)
        return {
            key: function([v[key] for v in vectors], **params)
            if linear_map(key, value)
            else scale * np.mean([v[key] for v in vectors], axis=0)
            for key, value in base.items()
        }

    return merged


def polar(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal polar factor, by eigenvectors: M (MᵀM)^(−1/2), for full column rank."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return matrix @ (vectors / np.sqrt(values)) @ vectors.T


def tsv_m(vectors: list[np.ndarray], scale: float = 1.0) -> np.ndarray:
    k = max(1, min(vectors[0].shape) // len(vectors))
    us, ss, vs = zip(
        *[
            (u[:, :k], s[:k], vt[:k].T)
            for u, s, vt in (np.linalg.svd(v, full_matrices=False) for v in vectors)
        ],
        strict=True,
    )
    return scale * polar(np.hstack(us)) @ np.diag(np.concatenate(ss)) @ polar(np.hstack(vs)).T


def iso_c(vectors: list[np.ndarray], scale: float = 1.0) -> np.ndarray:
    u, s, vt = np.linalg.svd(sum(vectors), full_matrices=False)
    return scale * s.mean() * u @ vt


def iso_cts(vectors: list[np.ndarray], common: float = 0.8, scale: float = 1.0) -> np.ndarray:
    rank, n = min(vectors[0].shape), len(vectors)
    own = int(rank * (1 - common) + 1e-9) // n
    k = rank - own * n
    u, s, vt = np.linalg.svd(sum(vectors), full_matrices=False)
    us, ss, vs = [u[:, :k]], [s[:k]], [vt[:k].T]
    for v in vectors:
        a, b, c = np.linalg.svd(v - us[0] @ us[0].T @ v, full_matrices=False)
        us.append(a[:, :own])
        ss.append(b[:own])
        vs.append(c[:own].T)
    return scale * np.concatenate(ss).mean() * polar(np.hstack(us)) @ polar(np.hstack(vs)).T


def wudi(
    vectors: list[np.ndarray], steps: int = 300, learning_rate: float = 1e-5, scale: float = 1.0
) -> np.ndarray:
    point = sum(vectors)
    alive = [v for v in vectors if v.any()]
    if steps == 0:
        a = sum(v.T @ v / (v**2).sum() for v in alive)
        b = sum(v @ v.T @ v / (v**2).sum() for v in alive)
        return scale * (point + (b - point @ a) @ np.linalg.pinv(a, rcond=1e-12, hermitian=True))
    m = s = np.zeros_like(point)
    for step in range(1, steps + 1):
        gradient = sum(2 * (point - v) @ v.T @ v / (v**2).sum() for v in alive)
        m, s = 0.9 * m + 0.1 * gradient, 0.999 * s + 0.001 * gradient**2
        point = point - learning_rate * (m / (1 - 0.9**step)) / (np.sqrt(s / (1 - 0.999**step)) + 1e-8)
    return scale * point


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
    "dare-linear": lambda *args, **params: dare(False, *args, **params),
    "dare-ties": lambda *args, **params: dare(True, *args, **params),
    "della-linear": lambda *args, **params: della(False, *args, **params),
    "della-ties": lambda *args, **params: della(True, *args, **params),
    "breadcrumbs": per_tensor(lambda *args, **params: breadcrumbs(False, *args, **params)),
    "breadcrumbs-ties": per_tensor(lambda *args, **params: breadcrumbs(True, *args, **params)),
    "sce": per_tensor(sce),
    "tsv-m": spectral(tsv_m),
    "iso-c": spectral(iso_c),
    "iso-cts": spectral(iso_cts),
    "wudi": spectral(wudi),
}
