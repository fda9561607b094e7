"""The points between base and fine-tune, embedded: five passes a line, and one more for its ramp over depth.

Along a line θ0 + α·V the embeddings are smooth in α, so what lies between the five shares embedded is their
interpolation: a candidate costs milliseconds. A ramp is α + β·(depth − ½), depth from 0 at the first layer to
1 at the last (LiNeS, arXiv 2410.17146, has the same two parameters); near the best point of the line the
embeddings are nearly linear in β.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from selfpos.positioning.live import LiveModel
from selfpos.vectors.names import depths

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # embedded; a polynomial of degree four goes through them
STEP = 0.2  # of the ramp's finite difference, in β


@dataclass(frozen=True)
class Place:
    """A point on a line: α of its direction, and β, by how much more the last layer takes than the first."""

    line: str
    alpha: float
    ramp: float = 0.0


@dataclass
class Line:
    """θ0 + α Σ w_i V_i with `direction` w (N,), and the embeddings (P, d) known on it by α."""

    name: str
    direction: Tensor
    known: dict[float, Tensor] = field(default_factory=dict)
    slopes: dict[float, Tensor] = field(default_factory=dict)

    def embeddings(self, alpha: float) -> Tensor:
        """Those at α, interpolated where they are not known."""
        if alpha in self.known:
            return self.known[alpha]
        weights = [_lagrange(alpha, node, ALPHAS) for node in ALPHAS]
        return sum((self.known[n] * w for n, w in zip(ALPHAS, weights, strict=True)), torch.zeros(()))


class Embedder:
    """Embeds `texts` at places of some lines, whole where the model cuts embeddings: a correction is of whole
    ones.
    """

    def __init__(self, live: LiveModel, texts: Sequence[str]) -> None:
        self.live, self.texts = live, list(texts)
        self.lines: dict[str, Line] = {}
        self._last: tuple[Place, Tensor] | None = None

    @cached_property
    def depth(self) -> Tensor:
        """The depth of each tensor less one half, (T, 1)."""
        by_key = depths(self.live.keys)
        return torch.tensor([[by_key[key] - 0.5] for key in self.live.keys], dtype=torch.float64)

    def table(self, place: Place) -> Tensor:
        """The coefficients (T, N) of a place."""
        shares = place.alpha + place.ramp * self.depth
        return shares * self.lines[place.line].direction

    @torch.no_grad()
    def exactly(self, place: Place) -> Tensor:
        """Embeddings (P, d) at a place, by a forward pass; those of the last place are kept."""
        line = self.lines[place.line]
        if not place.ramp and place.alpha in line.known:
            return line.known[place.alpha]
        if self._last is None or self._last[0] != place:
            self.live.set_coefficients(self.table(place))
            self._last = place, self.live.embed(self.texts, whole=True).float().cpu()
        if not place.ramp:
            line.known[place.alpha] = self._last[1]
        return self._last[1]

    def add_line(self, name: str, direction: Sequence[float]) -> None:
        """Embed along a line; all lines begin at the base, which is embedded once."""
        base = next((line.known[0.0] for line in self.lines.values()), None)
        line = Line(name, torch.tensor([list(direction)], dtype=torch.float64))
        if base is not None:
            line.known[0.0] = base
        self.lines[name] = line
        for alpha in ALPHAS:
            self.exactly(Place(name, alpha))

    def add_ramp(self, place: Place) -> None:
        """Learn how the embeddings change with β at a place without ramp."""
        line = self.lines[place.line]
        ahead = self.exactly(Place(place.line, place.alpha, STEP))
        line.slopes[place.alpha] = (ahead - self.exactly(place)) / STEP

    def predicted(self, place: Place) -> Tensor:
        """Embeddings (P, d) at a place, without a forward pass."""
        line = self.lines[place.line]
        embeddings = line.embeddings(place.alpha)
        if not place.ramp:
            return embeddings
        nearest = min(line.slopes, key=lambda alpha: abs(alpha - place.alpha))
        return embeddings + place.ramp * line.slopes[nearest]


def _lagrange(at: float, node: float, nodes: Sequence[float]) -> float:
    value = 1.0
    for other in nodes:
        if other != node:
            value *= (at - other) / (node - other)
    return value
