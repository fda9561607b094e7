"""Imbalance: which task the joint model leans to, what it costs each evaluation task, and what the length of a task vector goes with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Share:
    """How much of the joint model's vector J is one specialist's V: `cosine` of the two, `projection` <J, V>/‖V‖² (1: J goes as far that way as V),
    `coefficient` of V in the combination of all specialists nearest to J."""

    name: str
    norm: float
    cosine: float
    projection: float
    coefficient: float


@dataclass(frozen=True)
class Dominance:
    """Every specialist's share in the joint vector of length `norm`; `explained` of its squared length lies in their span."""

    shares: list[Share]
    norm: float
    explained: float


def dominance(gram: np.ndarray, names: Sequence[str]) -> Dominance:
    """Who dominates the joint vector, from the inner products (N + 1, N + 1) of N specialists, called `names`, and the joint vector, the last."""
    inner, towards, squared = gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1])
    coefficients = np.linalg.lstsq(inner, towards, rcond=None)[0]
    norms = np.sqrt(np.diag(inner))
    length = math.sqrt(squared)
    shares = [
        Share(
            name,
            float(norm),
            float(product / (norm * length)) if norm * length > 0 else 0.0,
            float(product / norm**2) if norm > 0 else 0.0,
            float(coefficient),
        )
        for name, norm, product, coefficient in zip(names, norms, towards, coefficients, strict=True)
    ]
    return Dominance(shares, length, float(coefficients @ towards / squared) if squared > 0 else 0.0)


@dataclass(frozen=True)
class Gap:
    """One evaluation task: scores in 0..1 of the base, of the joint model called `rival` and of the specialist that is best at it, and
    `gap` = joint − best."""

    task: str
    base: float | None
    rival: str
    joint: float
    best: float
    specialist: str
    gap: float


def joint_gaps(
    scores: Mapping[str, Mapping[str, float]], specialists: Sequence[str], joints: Sequence[str]
) -> list[Gap]:
    """What each of the joint models `joints` gains or loses against the best specialist on every evaluation task: the paper's evidence of conflict.

    The best of several models is chosen on the score itself, so that it is ahead by luck alone where all are equal: a small loss proves nothing.
    """
    found = []
    for rival in joints:
        for task, score in scores.get(rival, {}).items():
            own = {name: scores[name][task] for name in specialists if task in scores.get(name, {})}
            if own:
                best = max(own, key=lambda name: own[name])
                found.append(
                    Gap(
                        task,
                        scores.get("base", {}).get(task),
                        rival,
                        score,
                        own[best],
                        best,
                        score - own[best],
                    )
                )
    return found


@dataclass(frozen=True)
class Arm:
    """One small training: on how many `records`, for how many `steps`; the `norm` of its vector, and its `angle` in degrees to the task's longest arm."""

    task: str
    kind: str
    records: int
    steps: int
    norm: float
    angle: float


@dataclass(frozen=True)
class Law:
    """‖V‖ ≈ c_task · records^`by_records` · steps^`by_steps`, by least squares of the logarithms within tasks; `explained` of their variance by
    both, by records alone and by steps alone."""

    by_records: float
    by_steps: float
    explained: float
    explained_by_records: float
    explained_by_steps: float


def length_law(arms: Sequence[Arm]) -> Law | None:
    """What the length of a vector goes with, once arms tell records and steps apart; None where they do not."""
    tasks = list(dict.fromkeys(arm.task for arm in arms))
    used = [arm for arm in arms if arm.norm > 0]
    if not used:
        return None

    def centred(values: Sequence[float]) -> np.ndarray:
        """Without each task's mean, so that tasks are not compared with each other."""
        found = np.array(values, dtype=np.float64)
        for task in tasks:
            own = np.array([arm.task == task for arm in used])
            if own.any():
                found[own] -= found[own].mean()
        return found

    records, steps = (
        centred([math.log(arm.records) for arm in used]),
        centred([math.log(arm.steps) for arm in used]),
    )
    lengths = centred([math.log(arm.norm) for arm in used])
    both = np.stack([records, steps], 1)
    total = float(lengths @ lengths)
    if np.linalg.matrix_rank(both, tol=1e-8) < 2 or total == 0:
        return None

    def fit(columns: np.ndarray) -> tuple[np.ndarray, float]:
        weights = np.linalg.lstsq(columns, lengths, rcond=None)[0]
        return weights, 1 - float(np.square(lengths - columns @ weights).sum()) / total

    weights, explained = fit(both)
    return Law(
        float(weights[0]), float(weights[1]), explained, fit(records[:, None])[1], fit(steps[:, None])[1]
    )
