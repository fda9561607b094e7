"""The spectral methods once more, in float64; see reference.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

State = dict[str, np.ndarray]


def linear_map(key: str, value: np.ndarray) -> bool:
    return value.ndim == 2 and min(value.shape) > 1 and "embed" not in key


def spectral(function: Callable[..., np.ndarray]) -> Callable[..., State]:
    """Methods on whole matrices; all else takes the mean or sum times the scale. Weights stretch vectors."""

    def merged(
        base: State, vectors: list[State], weights: list[float] | None, others: str = "mean", **params: Any
    ) -> State:
        scale = params.get("scale", 1.0)
        stretches = [1.0] * len(vectors) if weights is None else weights
        vectors = [{key: w * v[key] for key in v} for v, w in zip(vectors, stretches, strict=True)]
        over_others = np.mean if others == "mean" else np.sum
        return {
            key: function([v[key] for v in vectors], **params)
            if linear_map(key, value)
            else scale * over_others([v[key] for v in vectors], axis=0)
            for key, value in base.items()
        }

    return merged


def polar(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal polar factor, by eigenvectors: M (MᵀM)^(−1/2), for full column rank."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return matrix @ (vectors / np.sqrt(values)) @ vectors.T


def tsv_m(vectors: list[np.ndarray], scale: float = 1.0) -> np.ndarray:
    k = max(1, min(vectors[0].shape) // len(vectors))
    triples = [np.linalg.svd(v, full_matrices=False) for v in vectors]
    left, right = np.hstack([u[:, :k] for u, _, _ in triples]), np.hstack([vt[:k].T for _, _, vt in triples])
    values = np.concatenate([s[:k] for _, s, _ in triples])
    return scale * polar(left) @ np.diag(values) @ polar(right).T


def iso_c(vectors: list[np.ndarray], scale: float = 1.0) -> np.ndarray:
    u, s, vt = np.linalg.svd(sum(vectors), full_matrices=False)
    return scale * s.mean() * u @ vt


def iso_cts(vectors: list[np.ndarray], common: float = 0.8, scale: float = 1.0) -> np.ndarray:
    rank, n = min(vectors[0].shape), len(vectors)
    specific = int(rank * (1 - common) + 1e-9) // n
    k = rank - specific * n
    u, s, vt = np.linalg.svd(sum(vectors), full_matrices=False)
    us, ss, vs = [u[:, :k]], [s[:k]], [vt[:k].T]
    for v in vectors:
        a, b, c = np.linalg.svd(v - us[0] @ us[0].T @ v, full_matrices=False)
        us.append(a[:, :specific])
        ss.append(b[:specific])
        vs.append(c[:specific].T)
    return scale * np.concatenate(ss).mean() * polar(np.hstack(us)) @ polar(np.hstack(vs)).T


def wudi(
    vectors: list[np.ndarray],
    steps: int = 300,
    learning_rate: float = 1e-5,
    ridge: float = 0.0,
    scale: float = 1.0,
) -> np.ndarray:
    point = sum(vectors)
    alive = [v for v in vectors if v.any()]
    if ridge:  # as least squares
        columns = point.shape[1]
        scaled = [v / np.linalg.norm(v) for v in alive]
        pull = np.sqrt(ridge * len(alive) / columns) * np.eye(columns)
        wanted = [v @ s.T for v, s in zip(alive, scaled, strict=True)]
        solved = np.linalg.lstsq(np.vstack([*scaled, pull]), np.hstack([*wanted, point @ pull]).T, rcond=None)
        return scale * solved[0].T
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
