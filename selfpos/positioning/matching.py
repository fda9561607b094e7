"""Tasks without labels: on each vector's own texts its specialist is the teacher, on general texts the base.

What is to be matched is the structure of similarities: a search by cosine asks which texts are near a text,
not where in space they lie. For a text i, with cosines s_ij to the other texts, the value is the mean of
(s_ij − t_ij)² over j ≠ i, t_ij the teacher's, in units of its mean between base and specialist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selfpos.positioning.smooth import SmoothMeasure
from selfpos.tasks.measure import TaskMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Matching(SmoothMeasure):
    """How far the similarities of `texts` are from the teacher's, (n, n), in units of `unit`."""

    in_units = True

    def __init__(self, texts: Sequence[str], teacher: Tensor, unit: float) -> None:
        self.texts, self.sharing, self.unit = list(texts), [{text} for text in texts], unit
        self.similarities = teacher

    @property
    def usable(self) -> int:
        return self.count

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of all `rows`: the mean over `others`, without the text itself."""
        units = functional.normalize(embeddings, dim=1)
        differences = units[rows] @ units[others].T - self.similarities[rows][:, others]
        itself = rows[:, None] == others
        squares = differences.square().masked_fill(itself, 0.0).sum(1)
        return rows, squares / (~itself).sum(1) / self.unit


class Agreement(TaskMeasure):
    """How far the similarities of each text to the others go along with the teacher's, (n, n): Pearson's
    correlation.
    """

    def __init__(self, texts: Sequence[str], teacher: Tensor, *, of_base: bool) -> None:
        self.texts, self.of_base = list(texts), of_base
        self._teacher = _standardised(teacher.double())

    def items(self, embeddings: Tensor) -> dict[str, NDArray]:
        """The correlation of each text."""
        ours = _standardised(similarities(embeddings).double())
        return {"agreement": np.round((ours * self._teacher).sum(1).numpy(), 9)}

    def score_of(self, items: Mapping[str, NDArray], rows: NDArray | None) -> float:
        """The mean over the texts `rows`, or over all."""
        values = items["agreement"]
        return float((values if rows is None else values[rows]).mean())


def similarities(embeddings: Tensor) -> Tensor:
    """Cosines (n, n) of embeddings (n, d)."""
    units = functional.normalize(embeddings.detach().float(), dim=1)
    return units @ units.T


def _standardised(cosines: Tensor) -> Tensor:
    """Rows without their own text, of mean 0 and length 1, (n, n − 1)."""
    count = len(cosines)
    others = cosines[~torch.eye(count, dtype=torch.bool)].reshape(count, count - 1)
    return functional.normalize(others - others.mean(1, keepdim=True), dim=1)
