"""Refinement after the search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from selfpos.errors import SelfposError
from selfpos.positioning.judge import Judge, Judgement
from selfpos.positioning.objective import split_probe
from selfpos.positioning.problem import Problem
from selfpos.positioning.refine import _coordinates, refine
from selfpos.positioning.replay import Replay
from selfpos.positioning.trajectory import Trajectory
from selfpos.recipe import PositioningSettings, validate
from tests.helpers.stand_ins import graded, make_live, pairs


def test_coordinate_search_finds_the_bottom_of_a_bowl() -> None:
    bottom = torch.tensor([0.83, -0.27, 1.4], dtype=torch.float64)
    problem = SimpleNamespace(
        settings=PositioningSettings(refine_evaluations=200), admissible=lambda point: point
    )
    asked = []

    def bowl(point: torch.Tensor, number: int) -> float:
        asked.append(point)
        return float((point - bottom).square().sum())

    with Trajectory(None) as record:
        fitness = Replay("refine", bowl, record, SimpleNamespace(embedded=0))
        _coordinates(fitness, torch.full((3,), 0.5, dtype=torch.float64), 10.0, problem)
    assert min(asked, key=lambda point: float((point - bottom).norm())).tolist() == pytest.approx(
        bottom.tolist(), abs=0.025
    )
    assert len(asked) < 80


@pytest.mark.parametrize("how", ["coordinate", "cma-es"])
def test_a_refined_point_is_at_least_as_good_by_the_measure(
    tiny_base: Path, tiny_specialists: list[Path], how: str
) -> None:
    if how == "cma-es":
        pytest.importorskip("cma")
    settings = PositioningSettings(refine=how, refine_evaluations=8, granularity="layer")
    parts = split_probe({"pairs": pairs(48), "graded": graded(48)}, 0.5, 0, 0.05)
    live = make_live(tiny_base, tiny_specialists)
    problem, judge = Problem(live, parts[0], settings), Judge(*parts, settings, 0)
    judge.measure_base(live)
    start = problem.start.clone()
    start[1:] += 0.1
    with Trajectory(None) as record:
        live.place(problem.table(start))
        record.judge(0, start, judge.measure(live))
        before = record.best.value
        refine(problem, judge, record, seed=0)
    live.place(problem.table(record.best.parameters))
    assert record.steps == (8 if how == "coordinate" else 7)
    assert judge.measure(live).value == pytest.approx(record.best.value)
    assert record.best.value <= before
    assert torch.equal(record.best.parameters[1:], start[1:])


class Records:
    """A judge of one task whose score is the mean of `found(coefficient)` over its records."""

    def __init__(self, live: SimpleNamespace, found: Callable[[float], np.ndarray]) -> None:
        self.live, self.found, self.measures = live, found, {"task": self}

    def score_of(self, items: dict[str, np.ndarray], chosen: np.ndarray | None) -> float:
        return float(items["hit"].mean() if chosen is None else items["hit"][chosen].mean())

    def measure(self, live: SimpleNamespace) -> Judgement:
        items = {"hit": self.found(float(live.at[0, 0]))}
        return Judgement(
            {"task": 0.0}, {"task": items["hit"].mean()}, -float(items["hit"].mean()), {"task": items}
        )


@pytest.mark.parametrize(("better", "kept"), [(4, 0.5), (40, 0.7)])
def test_a_gain_that_may_be_chance_is_not_taken(better: int, kept: float) -> None:
    """Of 100 records 60 are right at .5; at .7 `better` others are right, and 3 that were are not."""

    def found(at: float) -> np.ndarray:
        hit = np.arange(100) < 60
        if at > 0.6:
            hit[:3], hit[60 : 60 + better] = False, True
        return hit.astype(float)

    live = SimpleNamespace(embedded=0, at=torch.tensor([[0.5]], dtype=torch.float64))
    live.place = lambda table: setattr(live, "at", table)
    problem = SimpleNamespace(
        settings=PositioningSettings(refine="coordinate", refine_evaluations=20),
        live=live,
        table=lambda at: at,
        admissible=lambda at: at,
    )
    judge = Records(live, found)
    with Trajectory(None) as record:
        record.judge(3, live.at, judge.measure(live))
        refine(problem, judge, record, seed=0)
    assert record.best.parameters.item() == pytest.approx(kept)
    assert record.best.judgement.scores["task"] == pytest.approx(0.6 if kept == 0.5 else 0.97)
    assert (record.best.step == 3) == (kept == 0.5)


@pytest.mark.parametrize("wrong", [{"validation": 0.0}, {"select": "loss"}, {"preset": "paper"}])
def test_refinement_without_a_measure_to_go_by_is_one_sentence(wrong: dict) -> None:
    with pytest.raises(SelfposError, match="refine goes by the measures on a validation part"):
        validate(PositioningSettings, {"refine": "coordinate", **wrong}, "positioning")
