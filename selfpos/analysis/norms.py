"""What the length of a task vector depends on: small specialists that tell records from steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShortTraining:
    """One small specialist: its `records` and `steps`, the `norm` of its vector, and the `angle` in degrees
    to the vector of the task's longest training."""

    task: str
    kind: str
    records: int
    steps: int
    norm: float
    angle: float


@dataclass(frozen=True)
class LengthLaw:
    """‖V‖ ≈ c_task · records^`by_records` · steps^`by_steps`, a least-squares fit of logarithms within tasks.

    `explained` is the share of variance that both explain, the others that of records or steps alone.
    """

    by_records: float
    by_steps: float
    explained: float
    explained_by_records: float
    explained_by_steps: float


def length_law(trainings: Sequence[ShortTraining]) -> LengthLaw | None:
    """Fit the law; None where the trainings do not tell records from steps."""
    used = [training for training in trainings if training.norm > 0]
    if not used:
        return None
    logs = np.log([[training.records, training.steps, training.norm] for training in used])
    for task in {training.task for training in used}:  # tasks are not compared with each other
        rows = np.array([training.task == task for training in used])
        logs[rows] -= logs[rows].mean(0)
    causes, lengths = logs[:, :2], logs[:, 2]
    total = float(lengths @ lengths)
    if np.linalg.matrix_rank(causes, tol=1e-8) < 2 or math.isclose(total, 0, abs_tol=1e-24):
        return None

    def explained(columns: np.ndarray) -> float:
        exponents = np.linalg.lstsq(columns, lengths, rcond=None)[0]
        return 1 - float(np.square(lengths - columns @ exponents).sum()) / total

    by_records, by_steps = np.linalg.lstsq(causes, lengths, rcond=None)[0]
    return LengthLaw(
        float(by_records),
        float(by_steps),
        explained(causes),
        explained(causes[:, :1]),
        explained(causes[:, 1:]),
    )
