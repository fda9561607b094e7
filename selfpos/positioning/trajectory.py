"""The way a search went: one JSON line a step, and the best point so far."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from torch import Tensor

from selfpos.errors import OperationError, SelfposError
from selfpos.positioning.judge import Judgement


@dataclass(frozen=True)
class Point:
    """A point that a search has measured: its step, parameters (R, P), the losses it was judged by, and the value (lower is better)."""

    step: int
    parameters: Tensor
    losses: dict[str, float]
    value: float
    judgement: Judgement | None = None


class Trajectory:
    """Writes what a search reports to a JSONL file as it happens, if there is one, and keeps the best point."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.steps = path, 0
        self.best: Point | None = None
        self.started = time.perf_counter()
        self._file: IO[str] | None = None

    def __enter__(self) -> Trajectory:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8")
            except OSError as error:
                raise OperationError(f"cannot write the trajectory {self.path}: {error.strerror}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def step(self, step: int, losses: Mapping[str, float], coefficients: Sequence[float], **numbers: float) -> None:
        """Record one step. Raises SelfposError when a number is not finite."""
        self.steps = max(self.steps, step)
        self._write({"step": step, "losses": dict(losses), "coefficients": list(coefficients), **numbers})
        wrong = next((name for name, value in {**losses, **numbers}.items() if not math.isfinite(value)), None)
        if wrong is not None:
            raise SelfposError(f"'{wrong}' is no longer a finite number at step {step} of positioning; lower the learning rate")

    def judge(self, step: int, parameters: Tensor, judgement: Judgement, **numbers: float) -> bool:
        """Record a point judged on the validation part and keep it if it is the best; True if it is."""
        self.steps = max(self.steps, step)
        better = self.best is None or judgement.value < self.best.value
        found = {"validation": judgement.losses, "scores": judgement.scores, "value": judgement.value, "best": better}
        self._write({"step": step, **found, **numbers})
        if better:
            self.best = Point(step, parameters.detach().clone(), judgement.losses, judgement.value, judgement)
        return better

    def latest(self, step: int, parameters: Tensor, losses: Mapping[str, float]) -> None:
        """Take the newest point for the best: for a search that has nothing held out to choose by."""
        self.best = Point(step, parameters.detach().clone(), dict(losses), math.nan)

    def _write(self, line: dict) -> None:
        if self._file is not None:
            self._file.write(json.dumps({**line, "seconds": round(self.seconds, 3)}) + "\n")
            self._file.flush()
