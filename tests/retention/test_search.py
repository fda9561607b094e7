"""The search on points whose scores are known, and the parts of it that embed nothing."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from selfpos.errors import SelfposError
from selfpos.positioning.objective import TextTable
from selfpos.recipe import RetainSettings
from selfpos.retention import search as searching
from selfpos.retention.front import Point, choose
from selfpos.retention.index import RIDGE, fit
from selfpos.retention.judging import Judge, JudgedTask
from selfpos.retention.path import Place
from selfpos.retention.search import GRID, _Search, _shown, search
from selfpos.tasks.measure import TaskMeasure
from tests.helpers.fronts import BASE, SCALE, TUNED, point


def stub(**more: Any) -> Any:
    """A search over points whose scores are known."""
    table = SimpleNamespace(table=lambda place: torch.zeros(1, 1), lines={"tuned": None})
    known = {"scale": SCALE, "settings": RetainSettings(), "embedder": table, "documents": None}
    return SimpleNamespace(**{**known, "embedded_again": lambda place: BASE, **more})


def test_a_point_behind_the_front_of_means_may_hold_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """One general task gains so much that the mean hides how far another falls."""
    breaking, holding = point(0.6, 0.79, 0.70, 0.99), point(0.4, 0.74, 0.80, 0.80)
    run = stub(candidates=lambda: [BASE, holding, breaking, TUNED])
    run.take = lambda points: choose(SCALE, points, None)
    monkeypatch.setattr(searching, "_Search", lambda *_: run)
    live: Any = SimpleNamespace(keys=["k"], embedded=0)
    found = search(live, [], RetainSettings())
    assert found.chosen is holding
    assert holding in found.points


def test_a_point_that_does_not_hold_what_was_predicted_is_left_for_the_next() -> None:
    large, middle, small = point(0.6, 0.79, 0.80), point(0.5, 0.78, 0.80), point(0.4, 0.74, 0.80)
    elsewhere = Point(Place("other", 0.8), middle.scores, middle.items)
    embedded = {0.6: point(0.6, 0.79, 0.70), 0.5: middle, 0.4: small}
    run = stub(exact=lambda place: elsewhere if place.line == "other" else embedded[place.alpha])
    assert _Search.take(run, [large, middle, small]) is middle
    assert _Search.take(run, [large, small, elsewhere]) is elsewhere, "α is of a line"
    run.exact = lambda place: point(place.alpha, 0.79, 0.70)
    with pytest.raises(SelfposError, match="task g is in the way"):
        _Search.take(run, [large, small])


def test_no_ramp_turns_the_change_of_a_layer_round() -> None:
    low = point(0.08, 0.79, 0.80)
    seen: list[Place] = []

    def predicted(places: Iterable[Place]) -> list[Point]:
        seen.extend(places)
        return [low]

    run = stub(predicted=predicted)
    run.embedder.add_ramp = lambda place: None
    _Search.candidates(run)
    ramped = [place for place in seen if place.ramp]
    assert ramped
    assert all(place.alpha - abs(place.ramp) / 2 >= 0 for place in ramped)
    assert {place.alpha for place in seen if not place.ramp} == set(GRID)


def test_a_fine_tune_called_mean_keeps_its_line() -> None:
    lines: dict[str, list[float]] = {}
    embedder = SimpleNamespace(add_line=lambda name, direction: lines.update({name: direction}))
    _Search._embed_lines(SimpleNamespace(names=["mean", "other"], embedder=embedder))  # type: ignore[arg-type]
    assert lines == {"mean": [1.0, 0.0], "other": [0.0, 1.0], "mean of all": [0.5, 0.5]}


def test_the_mean_of_the_fine_tunes_is_shown_and_no_point_twice() -> None:
    mean = Point(Place("mean of all", 1.0), *_of(point(1.0, 0.79, 0.70)))
    middle = point(0.5, 0.74, 0.75)
    assert _shown(SCALE, [BASE, middle, mean, TUNED], middle) == [BASE, middle, mean, TUNED]
    again = Point(TUNED.place, TUNED.scores, TUNED.items)
    assert _shown(SCALE, [BASE, middle, TUNED], again) == [BASE, middle, TUNED]


def _of(found: Point) -> tuple[dict[str, float], Any]:
    return found.scores, found.items


class Seen(TaskMeasure):
    """Its items are the embeddings."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def items(self, embeddings: torch.Tensor) -> dict[str, np.ndarray]:
        return {"seen": embeddings.numpy()}


def test_a_kept_index_is_judged_by_a_correction_that_has_not_seen_the_text() -> None:
    """The domain's questions are never fitted to."""
    answers, others = Seen("q1", "q2", "d1", "d2"), Seen("g1", "g2", "g3", "g4", "d2")
    tasks = [JudgedTask("d", "domain", answers, asking=2), JudgedTask("g", "general", others)]
    table = TextTable([*answers.texts, *others.texts[:4]])
    judge = Judge(tasks, table, seed=0)
    generator = torch.Generator().manual_seed(1)
    base, moved = torch.randn(8, 3, generator=generator), torch.randn(8, 3, generator=generator)
    expected, without_each = fit(moved[2:], base[2:])
    correction = judge.correction(moved, base)
    assert torch.allclose(correction.matrix, expected.matrix)
    items = judge.items(moved, base)
    assert np.allclose(items["d"]["seen"][:2], correction(moved[:2])), "questions"
    assert np.allclose(items["d"]["seen"][2:], base[2:4]), "documents are the base's"
    assert np.allclose(items["g"]["seen"], without_each[[2, 3, 4, 5, 1]], atol=1e-6)


def test_the_correction_is_a_ridge_regression_and_leaves_each_text_out() -> None:
    from sklearn.linear_model import Ridge

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 5)) + 1, generator.normal(size=(40, 5))
    correction, without_each = fit(torch.tensor(x), torch.tensor(y))
    # scikit-learn's is the sum over texts, not the mean
    ridge = Ridge(alpha=RIDGE * ((x - x.mean(0)) ** 2).sum() / 5).fit(x, y - x)
    assert np.allclose(correction(torch.tensor(x, dtype=torch.float32)), x + ridge.predict(x), atol=1e-5)
    for left_out in (0, 17):
        kept = np.arange(40) != left_out
        ridge.fit(x[kept], (y - x)[kept])
        expected = x[left_out] + ridge.predict(x[left_out : left_out + 1])[0]
        assert np.allclose(without_each[left_out], expected, atol=1e-5)


def test_no_correction_at_the_base() -> None:
    base = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
    correction, without_each = fit(base, base)
    assert torch.allclose(correction(base), base, atol=1e-6)
    assert torch.allclose(without_each, base, atol=1e-6)
