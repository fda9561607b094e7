"""The path of a search: a JSON line a step, the best point, and the state a killed search continues from."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from selfpos.console import log
from selfpos.errors import OperationError, SelfposError
from selfpos.positioning.selection import Measurement
from selfpos.storage.atomic import write_bytes

FORMAT = 7  # of the state; raised whenever a search keeps or reads something else: older states are not read
EVERY = 10.0  # seconds of work that a kill may cost, where a search could save after every step


@dataclass(frozen=True)
class Point:
    """A point that was measured: its step, parameters (R, P), losses, value (lower is better) and measures.

    Without a validation part the value is NaN and there are no measures.
    """

    step: int
    parameters: Tensor
    losses: dict[str, float]
    value: float
    scores: dict[str, float]


class Trajectory:
    """Writes the reports of a search to a JSONL file, if there is one, and keeps the best point.

    With the file `state`, a search can `keep` what it needs to continue, and reads it from `kept` after a
    kill; the file of lines then continues at the same line. A process without `writes` only reads.
    """

    def __init__(self, path: Path | None, state: Path | None = None, *, writes: bool = True) -> None:
        self.path, self.state, self.writes, self.steps = path if writes else None, state, writes, 0
        self.best: Point | None = None
        self.kept: dict[str, Any] = {}
        self.started = time.perf_counter()
        self._file: IO[bytes] | None = None
        self._saved = -math.inf

    def __enter__(self) -> Trajectory:
        written = self._load()
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("r+b" if written is not None and self.path.is_file() else "wb")
                if written is not None:
                    self._file.truncate(min(written, self.path.stat().st_size))
                    self._file.seek(0, io.SEEK_END)
            except OSError as error:
                raise OperationError(f"cannot write the trajectory {self.path}: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _load(self) -> int | None:
        """Read the state of a killed search, if there is one; returns the length of its lines in bytes."""
        if self.state is None or not self.state.is_file():
            return None
        try:
            saved: dict[str, Any] = torch.load(self.state, weights_only=True, map_location="cpu")
        except Exception:  # whatever torch raises for a damaged file
            log.warning("%s is damaged; the search starts again", self.state)
            return None
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            log.warning("%s is of another version; the search starts again", self.state)
            return None
        self.kept, self.steps = saved["kept"], saved["steps"]
        self.started -= saved["seconds"]
        self.best = Point(**saved["best"]) if saved["best"] else None
        log.info("positioning continues at step %d of a search that was stopped", self.steps)
        return saved["written"]

    def keep(self, *, sparing: bool = False, **kept: Any) -> None:
        """Save `kept` (tensors and plain values) with the best point, beside what was kept before.

        With `sparing`, only if ten seconds have passed since the last time: for what changes every step.
        """
        if self.state is None or not self.writes or (sparing and time.perf_counter() - self._saved < EVERY):
            return
        self.kept |= kept
        state = {
            "format": FORMAT,
            "kept": self.kept,
            "best": vars(self.best) if self.best else None,
            "steps": self.steps,
            "seconds": self.seconds,
            "written": self._file.tell() if self._file else 0,
        }
        content = io.BytesIO()
        torch.save(state, content)
        try:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.state, content.getvalue())
        except OSError as error:
            raise OperationError(f"cannot write the search's state {self.state}: {error.strerror}") from None
        self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def step(
        self, step: int, losses: Mapping[str, float], coefficients: Sequence[float], **numbers: float
    ) -> None:
        """Record one step. Raises SelfposError when a number is not finite."""
        self.steps = max(self.steps, step)
        self._write({"step": step, "losses": dict(losses), "coefficients": list(coefficients), **numbers})
        for name, value in {**losses, **numbers}.items():
            if not math.isfinite(value):
                raise SelfposError(
                    f"'{name}' is no longer a finite number at step {step} of positioning; "
                    "lower the learning rate"
                )

    def scaled(self, scale: float, losses: Mapping[str, float]) -> None:
        """Record losses where all coefficients are `scale`, before the first step; 0 is the base.

        Raises SelfposError for one that is not finite.
        """
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise SelfposError(
                    f"the probe of task {name} gives {loss} at scale {scale:g}: look at its records"
                )
        self._write({"step": 0, "scale": scale, "losses": dict(losses)})

    def measured(self, step: int, parameters: Tensor, measurement: Measurement, **numbers: float) -> None:
        """Record a point measured on the validation part, and keep it if it is the best."""
        self.steps = max(self.steps, step)
        better = self.best is None or measurement.value < self.best.value
        line = {"validation": measurement.losses, "scores": measurement.scores, "value": measurement.value}
        self._write({"step": step, **line, "best": better, **numbers})
        if better:
            kept = parameters.detach().clone()
            self.best = Point(step, kept, measurement.losses, measurement.value, measurement.scores)

    def latest(self, step: int, parameters: Tensor, losses: Mapping[str, float]) -> None:
        """Take the newest point as the best: for a search without a validation part."""
        self.best = Point(step, parameters.detach().clone(), dict(losses), math.nan, {})

    def _write(self, line: dict) -> None:
        if self._file is not None:
            self._file.write((json.dumps({**line, "seconds": round(self.seconds, 3)}) + "\n").encode())
            self._file.flush()
