"""From a live model to the point that is taken: embed the lines, judge their points, choose, and check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from selfpos.console import progress
from selfpos.errors import SelfposError
from selfpos.positioning.coefficients import as_weights
from selfpos.positioning.objective import TextTable
from selfpos.positioning.teaching import warn_of_long
from selfpos.positioning.verdict import Items
from selfpos.retention.front import CLEAR, Interval, Point, Scale, barriers, choose, front
from selfpos.retention.index import Correction
from selfpos.retention.judging import Judge, JudgedTask, PlainTask
from selfpos.retention.path import ALPHAS, Embedder, Place

if TYPE_CHECKING:
    from selfpos.positioning.live import LiveModel
    from selfpos.recipe.retain import RetainSettings

GRID = tuple(round(0.04 * step, 2) for step in range(26))  # α of the candidates
RAMPS = (-0.5, -0.25, 0.25, 0.5)  # β of the candidates
MEAN = "mean of all"  # the line of several fine-tunes together


@dataclass(frozen=True)
class Retained:
    """What the search came to.

    `points` are the front with base and fine-tune, as predicted where they are not embedded; `chosen` is
    embedded, and `weights` are those of the merge that applies it, by tensor where it has a ramp. `kept` and
    `undone` are shares with 95 % intervals, `undone` None where no loss is clear. `index` and
    `correction` are of a kept index: what else questions and documents could be embedded by, and what takes
    questions to the base's documents.
    """

    points: list[Point]
    chosen: Point
    scale: Scale
    weights: list[float] | dict[str, list[float]]
    kept: tuple[float, Interval]
    undone: tuple[float, Interval] | None
    warnings: list[str] = field(default_factory=list)
    index: dict[str, Point] = field(default_factory=dict)
    correction: Correction | None = None
    texts: int = 0


class _Search:
    """One search. `documents` are the base's embeddings where its index is kept."""

    def __init__(
        self, live: LiveModel, tasks: Sequence[JudgedTask | PlainTask], settings: RetainSettings
    ) -> None:
        self.live, self.settings = live, settings
        self.table = TextTable([text for task in tasks for text in task.texts])
        warn_of_long(live, self.table.texts)
        self.width = live.width  # of an embedding, when it is judged
        self.embedder = Embedder(live, self.table.texts)
        self.names = [vector.name for vector in live.vectors]
        self._embed_lines()
        judged = [self._by_teachers(task) for task in tasks]
        self.judge = Judge(judged, self.table, settings.seed_of_draws, self.width)
        base = self.embedder.exactly(Place(self.first, 0.0))
        self.documents = base if settings.index == "base" else None
        ends = [self.embedded_again(Place(name, 1.0)) for name in self.names]
        means = [sum(end.scores[task] for task in self.judge.names("domain")) for end in ends]
        tuned = ends[means.index(max(means))]
        self.scale = Scale(self.judge, self.exact(Place(self.first, 0.0)), tuned)

    @property
    def first(self) -> str:
        """The name of the first line."""
        return next(iter(self.embedder.lines))

    def _embed_lines(self) -> None:
        """The line of each fine-tune, and that of their mean."""
        count = len(self.names)
        directions = {name: [float(i == j) for j in range(count)] for i, name in enumerate(self.names)}
        if count > 1:
            directions[MEAN] = [1.0 / count] * count
        with progress("embedding between base and fine-tune", len(directions), unit="lines") as bar:
            for name, direction in directions.items():
                self.embedder.add_line(name, direction)
                bar.advance(1)

    def _by_teachers(self, task: JudgedTask | PlainTask) -> JudgedTask:
        """`task` as it is, or, of plain texts, judged by the fine-tunes or by the base."""
        if isinstance(task, JudgedTask):
            return task
        rows = self.table.rows(task.texts)
        places = [Place(name, 1.0) for name in self.names]
        if task.side == "general":
            places = [Place(self.first, 0.0)]
        return task.by([self.embedder.exactly(place)[rows, : self.width] for place in places])

    def exact(self, place: Place) -> Point:
        """A point by a forward pass."""
        return self.judged(place, self.embedder.exactly(place))

    def predicted(self, places: Iterable[Place]) -> list[Point]:
        """Points without one."""
        return [self.judged(place, self.embedder.predicted(place)) for place in places]

    def embedded_again(self, place: Place) -> Point:
        """A point by a forward pass, whose documents it has embedded itself."""
        return self._point(place, self.judge.items(self.embedder.exactly(place)))

    def judged(self, place: Place, embeddings: Tensor) -> Point:
        """A point from its embeddings."""
        return self._point(place, self.judge.items(embeddings, self.documents))

    def _point(self, place: Place, items: Items) -> Point:
        return Point(place, self.judge.scores(items), items)

    def candidates(self) -> list[Point]:
        """Points of all lines, and those with ramps around the best of them."""
        points = self.predicted(Place(name, alpha) for name in self.embedder.lines for alpha in GRID)
        if self.settings.space == "line":
            return points
        best = max(points, key=self.scale.value).place
        nearest = min(ALPHAS[1:], key=lambda alpha: abs(alpha - best.alpha))
        self.embedder.add_ramp(Place(best.line, nearest))
        near = [alpha for alpha in GRID if alpha > 0 and abs(alpha - best.alpha) <= 0.17]
        return points + self.predicted(
            Place(best.line, alpha, ramp)
            for alpha in near[::2]
            for ramp in RAMPS
            if alpha >= abs(ramp) / 2  # less would turn the change of some layers round
        )

    def take(self, points: list[Point]) -> Point:
        """The point to take, embedded. One that does not hold what was predicted is left for the next."""
        if self.settings.alpha is not None:
            line = MEAN if MEAN in self.embedder.lines else self.first
            return self.exact(Place(line, self.settings.alpha))
        keep = self.settings.keep
        left = list(points)
        while True:
            chosen = choose(self.scale, left, keep)
            exact = self.exact(chosen.place)
            try:
                return choose(self.scale, [exact], keep)
            except SelfposError:
                left = [point for point in left if _may_hold(point.place, chosen.place, keep)]
                if not left:
                    raise


def _may_hold(place: Place, failed: Place, keep: float | None) -> bool:
    """Whether `place` may hold where `failed` did not: on its line a promise is kept more easily near the
    base, and a share of the gain near the fine-tune.
    """
    if place.line != failed.line:
        return True
    return place.alpha > failed.alpha if keep else place.alpha < failed.alpha


def _shown(scale: Scale, candidates: Sequence[Point], chosen: Point) -> list[Point]:
    """The front from base to fine-tune with the point taken, each once."""
    ends = [scale.base, scale.tuned]
    others = [point for point in front(scale, candidates) if scale.kept(point) > 0]
    places = {point.place for point in (*ends, chosen)}
    between = [point for point in others if point.place not in places]
    if (chosen.place, chosen.scores) not in [(end.place, end.scores) for end in ends]:
        between.append(chosen)
    return [scale.base, *sorted(between, key=lambda point: -scale.mean(point, "general")), scale.tuned]


def search(live: LiveModel, tasks: Sequence[JudgedTask | PlainTask], settings: RetainSettings) -> Retained:
    """Find the front and the point to take.

    Raises:
        SelfposError: the fine-tune gained nothing on the domain, or no point keeps the promise.
    """
    run = _Search(live, tasks, settings)
    scale = run.scale
    if scale.gain <= 0 and settings.alpha is None:
        raise SelfposError(
            f"{scale.tuned.place.line} is no better on the domain than the base ({100 * scale.gain:+.1f} "
            "points), so there is nothing to retain: look at the domain's records"
        )
    best = scale.tuned.place.line
    warnings = barriers(scale, [run.embedded_again(Place(best, alpha)) for alpha in ALPHAS])
    if not scale.learned:
        warnings.append(
            f"the gain on the domain is not clear, {100 * scale.gain:.1f} points with a standard error of "
            f"{100 * scale.errors[0]:.1f}: shares are of {CLEAR:g} standard errors; give more records"
        )
    candidates = run.candidates()
    chosen = run.take(candidates)
    points = _shown(scale, candidates, chosen)
    kept, undone = scale.intervals(chosen)
    index, correction = {}, None
    if run.documents is not None:
        correction = scale.judge.correction(run.embedder.exactly(chosen.place), run.documents)
        index = {
            "fine-tune's questions, corrected, the base's documents": run.exact(Place(best, 1.0)),
            "new questions, not corrected, all documents embedded again": run.embedded_again(chosen.place),
        }
    table = run.embedder.table(chosen.place).tolist()
    by_tensor = dict(zip(live.keys, table, strict=True)) if chosen.place.ramp else None
    return Retained(
        points=points,
        chosen=chosen,
        scale=scale,
        weights=as_weights(table[0], by_tensor),
        kept=(scale.kept(chosen), kept),
        undone=(scale.undone(chosen), undone) if scale.forgot else None,
        warnings=warnings,
        index=index,
        correction=correction,
        texts=live.embedded,
    )
