"""A fitness whose answers are kept: a search that was killed asks the same questions again, and is told what it was told before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from selfpos.console import Bar, progress

if TYPE_CHECKING:
    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.trajectory import Trajectory


class Replay:
    """`fitness` of (candidate, its number from 1 on), for a search whose questions follow from the seed and the answers alone.

    The answers are kept in the trajectory's state under `name`, and those found there are given again in their order.
    """

    def __init__(
        self, name: str, fitness: Callable[[Tensor, int], float], trajectory: Trajectory, live: LiveModel
    ) -> None:
        self.name, self.fitness, self.trajectory, self.live = name, fitness, trajectory, live
        found = trajectory.kept.get(name, {"values": [], "texts": 0})
        self.values: list[float] = list(found["values"])
        self._texts, self._known = max(live.embedded, found["texts"]), len(self.values)
        self.asked = 0
        self._bar: Bar | None = None

    def __call__(self, candidate: Tensor) -> float:
        self.asked += 1
        if self.asked <= self._known:
            self.live.embedded = self._texts
            value = self.values[self.asked - 1]
        else:
            value = self.fitness(candidate, self.asked)
            self.values.append(value)
            self.trajectory.keep(
                sparing=True, **{self.name: {"values": self.values, "texts": self.live.embedded}}
            )
        if self._bar is not None:
            self._bar.advance(1, value=min(self.values[: self.asked]))
        return value

    @contextmanager
    def shown(self, title: str, total: int) -> Iterator[None]:
        """Show a progress bar of the questions asked while the block runs."""
        with progress(title, total, unit="candidate") as bar:
            self._bar = bar
            yield
            self._bar = None
