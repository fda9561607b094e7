"""How good a point is on the validation part, which is never searched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from selfpos.positioning.draws import Draws
from selfpos.positioning.objective import TaskProbe, TextTable, losses_of, texts_of
from selfpos.tasks.measure import TaskMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfpos.positioning.live import LiveModel
    from selfpos.recipe import PositioningSettings

RECORDS = 128  # validation records of each task, at most
SLACK = 0.005  # of a measure: a task this little below the base is within the noise of a small part


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

    The value is minus the mean of the tasks' measures, plus what tasks lose against the base beyond SLACK.
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
        for name, task in validation.items():
            known, measured = search[name].sample(RECORDS, seed), task.sample(RECORDS, seed)
            self.measures[name] = task.measure_beside(known, measured)
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
        return Measurement(numbers, scores, self.value(scores), items)

    def value(self, scores: Mapping[str, float]) -> float:
        """The value of a point with these measures; lower is better."""
        value = -sum(scores.values()) / len(scores)
        if self.base is not None:
            base = self.base.scores
            value += sum(max(0.0, base[name] - score - SLACK) for name, score in scores.items())
        return value
