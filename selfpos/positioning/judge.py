"""How good a point is on the validation part of the probe: what iterates are chosen by. It never sees the records that are searched on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from selfpos.positioning.balance import Balance
from selfpos.positioning.objective import Draws, TaskProbe, losses_of, texts_of
from selfpos.tasks.measure import TaskMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from selfpos.positioning.live import LiveModel
    from selfpos.recipe import PositioningSettings

SLACK = (
    0.005  # of a measure: a task this little below the base is within the noise of a small validation part
)


def value_of(scores: Mapping[str, float], base: Mapping[str, float] | None, guard: float) -> float:
    """What a point with these measures, 0 to 1, is chosen by (lower is better): minus their mean, plus `guard` × what tasks lose against `base`."""
    value = -sum(scores.values()) / len(scores)
    if base is not None:
        value += guard * sum(max(0.0, base[name] - score - SLACK) for name, score in scores.items())
    return value


class TextTable:
    """Distinct texts and where to find each: a text that several batches or measures share is embedded once."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(dict.fromkeys(texts))
        self._rows = {text: row for row, text in enumerate(self.texts)}

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Row numbers of `texts` in the embeddings of `self.texts`."""
        return torch.tensor([self._rows[text] for text in texts])


@dataclass(frozen=True)
class Judgement:
    """Validation losses and measures of every task at one point, and the single value they come to (lower is better)."""

    losses: dict[str, float]
    scores: dict[str, float]
    value: float
    items: dict[str, dict[str, NDArray]]


class Judge:
    """Measures points on the validation part, at whatever weights the live model has.

    With `select: measure` the value is minus the mean of the tasks' own measures, plus `guard` times what tasks have lost against the
    base beyond a slack of .005; with `select: loss` it is the mean of the validation losses over the base's.
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
        self.batches = draws.fixed(settings.validation_records)
        measured = (
            validation.items() if settings.select == "measure" else []
        )  # their texts cost forward passes
        most = settings.validation_records
        self.measures = {
            name: TaskMeasure(search[name].sample(most, seed), task.sample(most, seed))
            for name, task in measured
        }
        self.table = TextTable(
            [*texts_of(self.batches), *(text for measure in self.measures.values() for text in measure.texts)]
        )
        self.base: Judgement | None = None

    @torch.no_grad()
    def measure(self, live: LiveModel) -> Judgement:
        """Judge the weights that `live` holds now."""
        return self.of(live.embed(self.table.texts), self.table)

    def measure_base(self, live: LiveModel) -> Judgement:
        """Measure the base, by which losses are normalised and tasks are guarded. Leaves the base's weights in `live`."""
        live.place(torch.zeros(len(live.keys), len(live.vectors), dtype=torch.float64))
        self.base = self.measure(live)
        return self.base

    @torch.no_grad()
    def of(self, embeddings: Tensor, table: TextTable) -> Judgement:
        """Judge by embeddings of `table.texts`, which hold all of the judge's texts."""
        losses = losses_of(self.tasks, self.batches, embeddings[table.rows(texts_of(self.batches))])
        items = {
            name: measure.items(embeddings[table.rows(measure.texts)])
            for name, measure in self.measures.items()
        }
        scores = {name: self.measures[name].score_of(found, None) for name, found in items.items()}
        numbers = {name: loss.item() for name, loss in losses.items()}
        return Judgement(numbers, scores, self._value(numbers, scores), items)

    def _value(self, losses: Mapping[str, float], scores: Mapping[str, float]) -> float:
        if self.settings.select == "loss":
            by_base = self.base is not None and self.settings.normalise != "none"
            balance = Balance(
                "base" if by_base else "none",
                "mean",
                self.settings.ratios,
                self.base.losses if self.base else {},
            )
            return balance.value(losses)
        return value_of(scores, self.base.scores if self.base else None, self.settings.guard)
