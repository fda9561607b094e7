"""Tasks without labels: on each vector's own texts its specialist is the teacher, on general texts the base.

What is to be matched is who is near whom: a search by cosine asks which texts are near a text, not where in
space they lie. For a text i the cosines to the other texts over τ, as a softmax, are a distribution over
them; the value is the Kullback-Leibler divergence from the teacher's, in units of that between base and
specialist. Squared differences of all cosines follow test scores less well: most pairs of texts are far from
each other, and how far is of no use to a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from selfpos.positioning.smooth import SmoothMeasure, compared
from selfpos.tasks.measure import TaskMeasure

if TYPE_CHECKING:
    from numpy.typing import NDArray


NEVER = -1e4  # logarithm of the share of the text itself: finite, since it is multiplied by none


class Matching(SmoothMeasure):
    """How far the neighbours of each of `texts` are from those by the teacher's similarities, (n, n).

    Values are divided by `unit`, cosines by the temperature τ.
    """

    in_units = True

    def __init__(self, texts: Sequence[str], teacher: Tensor, temperature: float, unit: float = 1.0) -> None:
        self.texts, self.sharing = list(texts), [{text} for text in texts]
        self.teacher, self.temperature, self.unit = teacher, temperature, unit

    @property
    def usable(self) -> int:
        return self.count

    def values(self, embeddings: Tensor, rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Of all `rows`: the divergence over `others`, without the text itself."""
        units = functional.normalize(embeddings, dim=1)
        itself = rows[:, None] == others
        ours = self._log_shares(units[rows] @ units[others].T, itself)
        theirs = self._log_shares(self.teacher[rows][:, others], itself)
        return rows, (theirs.exp() * (theirs - ours)).sum(1) / self.unit

    def _log_shares(self, cosines: Tensor, itself: Tensor) -> Tensor:
        return torch.log_softmax((cosines / self.temperature).masked_fill(itself, NEVER), dim=1)


class Agreement(TaskMeasure):
    """How far the similarities of each text to the others go along with the teacher's, (n, n): Pearson's
    correlation.
    """

    taught = True

    def __init__(
        self, texts: Sequence[str], teacher: Tensor, *, of_base: bool, similarity: str = "cosine"
    ) -> None:
        self.texts, self.of_base, self._similarity = list(texts), of_base, similarity
        self._teacher = _standardised(teacher.double())

    def items(self, embeddings: Tensor) -> dict[str, NDArray]:
        """The correlation of each text."""
        ours = _standardised(similarities(embeddings, self._similarity).double())
        return {"agreement": np.round((ours * self._teacher).sum(1).numpy(), 9)}

    def score_of(self, items: Mapping[str, NDArray], rows: NDArray | None) -> float:
        """The mean over the texts `rows`, or over all."""
        values = items["agreement"]
        return float((values if rows is None else values[rows]).mean())


def similarities(embeddings: Tensor, similarity: str = "cosine") -> Tensor:
    """Similarities (n, n) of embeddings (n, d), by sentence-transformers' name of them."""
    exact = embeddings.detach().float()
    return compared(exact, exact, similarity)


def _standardised(cosines: Tensor) -> Tensor:
    """Rows without their own text, of mean 0 and length 1, (n, n − 1)."""
    count = len(cosines)
    others = cosines[~torch.eye(count, dtype=torch.bool)].reshape(count, count - 1)
    return functional.normalize(others - others.mean(1, keepdim=True), dim=1)
