"""Points of a front whose scores are known: shares of 400 records that are right. No model is loaded."""

from __future__ import annotations

import numpy as np

from selfpos.positioning.objective import TextTable
from selfpos.retention.front import Point, Scale
from selfpos.retention.judging import Judge, JudgedTask, Side
from selfpos.retention.path import Place
from selfpos.tasks.measure import TaskMeasure

RECORDS = 400
TASKS: dict[str, Side] = {"d": "domain", "g": "general", "h": "general"}


class Hits(TaskMeasure):
    """The mean of one value a record."""

    def __init__(self) -> None:
        self.texts = []

    def score_of(self, items: dict[str, np.ndarray], rows: np.ndarray | None) -> float:
        return float((items["hits"] if rows is None else items["hits"][rows]).mean())


JUDGE = Judge([JudgedTask(name, side, Hits()) for name, side in TASKS.items()], TextTable([]), seed=0)


def point(alpha: float, d: float, g: float, h: float = 0.8) -> Point:
    """A point at which such shares of the records are right, the same ones first at every point."""
    count = np.arange(RECORDS) / RECORDS
    shares = dict(zip(TASKS, (d, g, h), strict=True))
    items = {name: {"hits": (count < share).astype(float)} for name, share in shares.items()}
    return Point(Place("tuned", alpha), JUDGE.scores(items), items)


BASE, TUNED = point(0.0, 0.50, 0.80), point(1.0, 0.80, 0.60)
SCALE = Scale(JUDGE, BASE, TUNED)
