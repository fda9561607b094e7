"""The way a search went: one JSON line a step, the best point so far, and what a killed search goes on from."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from torch import Tensor

from selfpos.console import log
from selfpos.errors import OperationError, SelfposError
from selfpos.positioning.judge import Judgement
from selfpos.storage.atomic import write_bytes

FORMAT = 2
"""Of the state that a killed search goes on from. Raised whenever a search keeps something else, so that no older state is taken up."""
EVERY = 10.0
"""Seconds of work that a kill may cost, where a search could save after every step."""


@dataclass(frozen=True)
class Point:
    """A point that a search has measured: its step, parameters (R, P), the losses it was judged by, and the value (lower is better)."""

    step: int
    parameters: Tensor
    losses: dict[str, float]
    value: float
    judgement: Judgement | None = None


@dataclass(frozen=True)
class EndedSearch:
    """What a search has come to: its label, best point, the steps it made, intervals about its coefficients, and the texts embedded by then."""

    label: dict[str, Any]
    best: Point
    steps: int
    spread: list[tuple[float, float]] | None
    texts: int


class Trajectory:
    """Writes what a search reports to a JSONL file as it happens, if there is one, and keeps the best point.

    With the file `state`, a search can `keep` what it would need to go on, and finds it again in `kept` after a kill; the trajectory then
    goes on from the same line. The file is removed by whoever has made something of the result. One that does not write reads alone.
    Of several searches, one after the other, `close` ends each, and `closed` holds what they came to; their lines carry their `label`.
    """

    def __init__(self, path: Path | None, state: Path | None = None, *, writes: bool = True) -> None:
        self.path, self.state, self.writes, self.steps = path if writes else None, state, writes, 0
        self.best: Point | None = None
        self.kept: dict[str, Any] = {}
        self.closed: list[EndedSearch] = []
        self.label: dict[str, Any] = {}
        self.started = time.perf_counter()
        self._file: IO[bytes] | None = None
        self._saved = -math.inf

    def __enter__(self) -> Trajectory:
        found = self._load()
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("r+b" if found and self.path.is_file() else "wb")
                if found:
                    self._file.truncate(min(found["written"], self.path.stat().st_size))
                    self._file.seek(0, io.SEEK_END)
            except OSError as error:
                raise OperationError(f"cannot write the trajectory {self.path}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _load(self) -> dict[str, Any] | None:
        if self.state is None or not self.state.is_file():
            return None
        try:
            found: dict[str, Any] = torch.load(self.state, weights_only=True)
        except Exception:
            log.warning("%s is damaged; the search begins anew", self.state)
            return None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            log.warning("%s is of another version; the search begins anew", self.state)
            return None
        self.kept, self.steps = found["kept"], found["steps"]
        self.started -= found["seconds"]
        self.best = _unpacked(found["best"])
        self.closed = [EndedSearch(**{**one, "best": _unpacked(one["best"])}) for one in found["closed"]]
        behind = f", {len(self.closed)} settings having been tried" if self.closed else ""
        log.info("positioning goes on from step %d of a search that was stopped%s", self.steps, behind)
        return found

    def keep(self, *, sparing: bool = False, **kept: Any) -> None:
        """Save `kept` (tensors and plain values) beside what was kept before, with the best point and the length of the trajectory.

        With `sparing`, only if ten seconds have passed since the last time: for what changes every step.
        """
        if self.state is None or not self.writes or (sparing and time.perf_counter() - self._saved < EVERY):
            return
        self.kept |= kept
        closed = [{**vars(one), "best": _packed(one.best)} for one in self.closed]
        state = {
            "format": FORMAT, "kept": self.kept, "best": _packed(self.best), "closed": closed, "steps": self.steps, "seconds": self.seconds,
            "written": self._file.tell() if self._file else 0,
        }  # fmt: skip
        content = io.BytesIO()
        torch.save(state, content)
        try:
            self.state.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.state, content.getvalue())
        except OSError as error:
            raise OperationError(
                f"cannot write the state of the search {self.state}: {error.strerror}"
            ) from None
        self._saved = time.perf_counter()

    def ended(self, spread: list[tuple[float, float]] | None, texts: int) -> EndedSearch:
        """What the search so far has come to, given intervals about its coefficients and the number of texts embedded by now."""
        assert self.best is not None
        return EndedSearch(self.label, self.best, self.steps, spread, texts)

    def close(self, spread: list[tuple[float, float]] | None, texts: int) -> None:
        """End a search, so that another can begin."""
        self.closed.append(self.ended(spread, texts))
        self.drop()

    def drop(self) -> None:
        """Leave the search so far out, so that another can begin."""
        self.best, self.steps, self.kept = None, 0, {}
        self.keep()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def step(
        self, step: int, losses: Mapping[str, float], coefficients: Sequence[float], **numbers: float
    ) -> None:
        """Record one step. Raises SelfposError when a number is not finite."""
        self.steps = max(self.steps, step)
        self._write({"step": step, "losses": dict(losses), "coefficients": list(coefficients), **numbers})
        wrong = next(
            (name for name, value in {**losses, **numbers}.items() if not math.isfinite(value)), None
        )
        if wrong is not None:
            raise SelfposError(
                f"'{wrong}' is no longer a finite number at step {step} of positioning; lower the learning rate"
            )

    def judge(self, step: int, parameters: Tensor, judgement: Judgement, **numbers: float) -> bool:
        """Record a point judged on the validation part and keep it if it is the best; True if it is."""
        self.steps = max(self.steps, step)
        better = self.best is None or judgement.value < self.best.value
        found = {
            "validation": judgement.losses,
            "scores": judgement.scores,
            "value": judgement.value,
            "best": better,
        }
        self._write({"step": step, **found, **numbers})
        if better:
            self.best = Point(step, parameters.detach().clone(), judgement.losses, judgement.value, judgement)
        return better

    def latest(self, step: int, parameters: Tensor, losses: Mapping[str, float]) -> None:
        """Take the newest point for the best: for a search that has nothing held out to choose by."""
        self.best = Point(step, parameters.detach().clone(), dict(losses), math.nan)

    def _write(self, line: dict) -> None:
        if self._file is not None:
            label = {"setting": self.label} if self.label else {}
            self._file.write(
                (json.dumps({**line, **label, "seconds": round(self.seconds, 3)}) + "\n").encode()
            )
            self._file.flush()


def trajectory_of(file: Path, label: Mapping[str, Any]) -> str:
    """The lines of `file` that are of the search with that `label`."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if json.loads(line).get("setting", {}) == dict(label))


def _packed(point: Point | None) -> dict[str, Any] | None:
    """What of `point` a state keeps: all but what was right of each record."""
    if point is None:
        return None
    scores = point.judgement.scores if point.judgement else None
    return {
        "step": point.step,
        "parameters": point.parameters,
        "losses": point.losses,
        "value": point.value,
        "scores": scores,
    }


def _unpacked(kept: dict[str, Any] | None) -> Any:
    """The point that `_packed` made `kept` of."""
    if kept is None:
        return None
    scores = kept.pop("scores")
    return Point(
        **kept, judgement=None if scores is None else Judgement(kept["losses"], scores, kept["value"], {})
    )
