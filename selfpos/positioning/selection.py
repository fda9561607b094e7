"""How good a point is on the validation part, which is never searched on, and whether it beats its rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from selfpos.positioning.draws import Draws
from selfpos.positioning.objective import Balance, TaskProbe, TextTable, losses_of, texts_of
from selfpos.tasks.measure import TaskMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfpos.positioning.live import LiveModel
    from selfpos.recipe import PositioningSettings

RECORDS = 128  # validation records of each task, at most
SLACK = 0.005  # of a measure: a task this little below the base is within the noise of a small part
GRID = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # λ of tuned task arithmetic
INTERVAL = ((1 - 0.9) / 2, (1 + 0.9) / 2)  # quantiles of every interval
RESAMPLES = 200  # of the validation records, behind the intervals of gains


@dataclass(frozen=True)
class Measurement:
    """Validation losses and measures of every task at one point, and the one value to select by.

    A lower value is better. `items` are what the measures are computed from, one value for each record.
    """

    losses: dict[str, float]
    scores: dict[str, float]
    value: float
    items: dict[str, dict[str, NDArray]]


class Selection:
    """Measures points on the validation part, at the current weights of the live model.

    With `select: measure` the value is minus the mean of the tasks' measures, plus what tasks lose against
    the base beyond SLACK; with `select: loss` the mean of the validation losses over the base's.
    """

    def __init__(
        self,
        search: Mapping[str, TaskProbe],
        validation: Mapping[str, TaskProbe],
        settings: PositioningSettings,
        seed: int,
    ) -> None:
        self.tasks, self.settings = validation, settings
        draws = Draws(validation, settings.batch_size, seed, single=settings.batches == "single")
        self.batches = draws.fixed(RECORDS)
        self.measures: dict[str, TaskMeasure] = {}
        if settings.select == "measure":  # else their texts would cost forward passes for nothing
            for name, task in validation.items():
                known, measured = search[name].sample(RECORDS, seed), task.sample(RECORDS, seed)
                self.measures[name] = TaskMeasure(known, measured)
        texts = [text for measure in self.measures.values() for text in measure.texts]
        self.table = TextTable([*texts_of(self.batches), *texts])
        self.base: Measurement | None = None

    @torch.no_grad()
    def measure(self, live: LiveModel) -> Measurement:
        """Measure the current weights of `live`."""
        return self.of(live.embed(self.table.texts), self.table)

    def measure_base(self, live: LiveModel) -> Measurement:
        """Measure the base, against which points are compared. Leaves the base's weights in `live`."""
        live.set_coefficients(torch.zeros(len(live.keys), len(live.vectors), dtype=torch.float64))
        self.base = self.measure(live)
        return self.base

    @torch.no_grad()
    def of(self, embeddings: Tensor, table: TextTable) -> Measurement:
        """Measure by embeddings of `table.texts`, which hold all texts of the validation part."""
        losses = losses_of(self.tasks, self.batches, embeddings[table.rows(texts_of(self.batches))])
        items, scores = {}, {}
        for name, measure in self.measures.items():
            items[name] = measure.items(embeddings[table.rows(measure.texts)])
            scores[name] = measure.score_of(items[name], None)
        numbers = {name: loss.item() for name, loss in losses.items()}
        return Measurement(numbers, scores, self.value(numbers, scores), items)

    def value(self, losses: Mapping[str, float], scores: Mapping[str, float]) -> float:
        """The value of a point with these validation losses and measures; lower is better."""
        if self.settings.select == "loss":
            in_units = self.settings.normalise == "base"
            units = self.base.losses if self.base and in_units else None
            return Balance(self.settings.ratios, units).value(losses)
        value = -sum(scores.values()) / len(scores)
        if self.base is not None:
            base = self.base.scores
            value += sum(max(0.0, base[name] - score - SLACK) for name, score in scores.items())
        return value


@dataclass(frozen=True)
class Rival:
    """A simple alternative on the same validation records, and the position's mean gain over it.

    `low` and `high` are the 90 % interval of the gain.
    """

    name: str
    scores: dict[str, float]
    gain: float
    low: float
    high: float


def compare(live: LiveModel, selection: Selection, position: Measurement, *, seed: int) -> list[Rival]:
    """The base, each specialist, and tuned task arithmetic, each against the measurement `position`.

    λ of task arithmetic has the best mean measure on the same records, even where a task falls below the
    base: the verdict is about means, and this is the strongest rival.
    """
    count = len(live.vectors)

    def at(coefficients: Sequence[float]) -> Measurement:
        row = torch.tensor(coefficients, dtype=torch.float64)
        live.set_coefficients(row.expand(len(live.keys), count))
        return selection.measure(live)

    points = [("base", selection.base or at([0.0] * count))]
    for index, vector in enumerate(live.vectors):
        points.append((vector.name, at([float(other == index) for other in range(count)])))
    scaled = {scale: at([scale] * count) for scale in GRID}
    best = max(scaled, key=lambda scale: sum(scaled[scale].scores.values()))
    points.append((f"task arithmetic {best:g}", scaled[best]))
    rivals = []
    for name, point in points:
        gain = sum(position.scores[task] - score for task, score in point.scores.items()) / len(point.scores)
        rivals.append(Rival(name, point.scores, gain, *gain_interval(selection, position, point, seed)))
    return rivals


def gain_interval(
    selection: Selection, position: Measurement, other: Measurement, seed: int
) -> tuple[float, float]:
    """90 % interval of the mean measure of `position` less that of `other`, resampling both alike."""
    rng = np.random.default_rng(seed)
    draws = np.zeros(RESAMPLES)
    for task, measure in selection.measures.items():
        size = len(next(iter(position.items[task].values())))
        for number in range(RESAMPLES):
            rows = rng.integers(size, size=size)
            ours, theirs = (measure.score_of(point.items[task], rows) for point in (position, other))
            draws[number] += ours - theirs
    low, high = np.quantile(draws / len(selection.measures), INTERVAL)
    return float(low), float(high)


def verdict(rivals: Sequence[Rival]) -> str:
    """One sentence: which rivals the position clearly beats, on the records that it was selected by."""
    equal = [rival for rival in rivals if rival.low <= 0]
    if not equal:
        least = min(rivals, key=lambda rival: rival.gain)
        return (
            "better than base, specialists and task arithmetic on the validation part, "
            "by which it was chosen; "
            f"the nearest is {least.name}, {100 * least.gain:.1f} points below on average"
        )
    names = ", ".join(
        f"{rival.name} ({100 * rival.gain:+.1f} points, {100 * rival.low:+.1f} to {100 * rival.high:+.1f})"
        for rival in equal
    )
    return (
        f"not clearly better than {names} on the validation part: "
        "prefer the simpler model, or give a larger probe"
    )
