"""The stochastic search on small problems whose answer is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from selfpos.errors import SelfposError
from selfpos.positioning import searches
from selfpos.positioning.draws import Draws, split_probe
from selfpos.positioning.live import LiveModel
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Selection
from selfpos.positioning.trajectory import Trajectory
from selfpos.recipe import PositioningSettings
from tests.helpers.stand_ins import NearTo, PairTask, Probe, graded, make_live, pairs, words

PLAIN = {"search": "sgd", "space": "spherical", "batch_size": 16, "normalise": "none", "validation": 0.25}


def run(
    live: LiveModel, probe: dict[str, Probe], path: Path | None = None, seed: int = 0, **options: object
) -> tuple[Problem, Trajectory]:
    settings = PositioningSettings(**{**PLAIN, **options})
    search, held_out = split_probe(probe, settings.validation, seed, settings.temperature)
    problem = Problem(live, search, settings)
    selection = Selection(search, held_out, settings, seed) if held_out else None
    with Trajectory(path) as record:
        searches.sgd(problem, selection, record, seed=seed)
    return problem, record


@pytest.mark.slow
@pytest.mark.parametrize(("space", "optimum"), [("linear", [1.0, 0.0, 0.4]), ("spherical", [0.7, 0.3, 0.4])])
def test_finds_the_optimum_where_it_is_known(
    tiny_base: Path, tiny_specialists: list[Path], space: str, optimum: list[float]
) -> None:
    live = make_live(tiny_base, tiny_specialists)
    live.set_coefficients(torch.tensor(optimum, dtype=torch.float64).expand(len(live.keys), 3))
    texts = words(48, seed=4)
    with torch.no_grad():
        task = NearTo(live.embed(texts))
    probe = {"near": Probe("near", task, Dataset.from_dict({"text": texts, "label": list(range(48))}))}
    problem, record = run(live, probe, space=space, steps=120, learning_rate=0.05, validation=0.0)
    assert record.best is not None
    assert problem.mean_coefficients(record.best.parameters).tolist() == pytest.approx(optimum, abs=0.03)


def test_trajectory_and_best_iterate(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "MEASUREMENTS", 2)  # every third step of seven
    path = tmp_path / "deep" / "trajectory.jsonl"
    _, record = run(
        make_live(tiny_base, tiny_specialists[:2]),
        {"pairs": pairs(), "graded": graded()},
        path,
        steps=7,
        learning_rate=0.5,
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [line for line in lines if "validation" not in line]
    judged = [line for line in lines if "validation" in line]
    assert [line["step"] for line in steps] == list(range(1, 8))
    assert [line["step"] for line in judged] == [0, 3, 6, 7]
    assert set(steps[0]["losses"]) == set(judged[0]["validation"]) == {"pairs", "graded"}
    assert steps[0]["coefficients"] == pytest.approx([0.5**0.5] * 2, abs=0.02)
    assert steps[0]["gradient_norm"] > 0
    best = min(judged, key=lambda line: line["value"])
    assert record.best is not None
    assert (record.best.step, record.best.value) == (best["step"], best["value"])


def test_without_a_held_out_part_the_last_point_is_kept(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    _, record = run(
        make_live(tiny_base, tiny_specialists[:2]),
        {"pairs": pairs()},
        steps=3,
        validation=0.0,
        batches="single",
    )
    assert record.best is not None
    assert record.best.step == 3


def test_equal_seeds_give_equal_results(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = [
        run(
            make_live(tiny_base, tiny_specialists[:2]),
            {"pairs": pairs(), "graded": graded()},
            steps=4,
            seed=seed,
        )[1].best
        for seed in (5, 5, 6)
    ]
    assert torch.equal(found[0].parameters, found[1].parameters)
    assert found[0].losses == found[1].losses
    assert found[0].losses != found[2].losses


def test_the_penalty_holds_the_scale_back(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    scales = []
    for penalty in (0.0, 5.0):
        _, record = run(
            make_live(tiny_base, tiny_specialists[:2]),
            {"pairs": pairs()},
            steps=10,
            validation=0.0,
            learning_rate=0.02,
            penalty=penalty,
        )
        assert record.best is not None
        scales.append(float(record.best.parameters[0, -1]))
    assert scales[1] == pytest.approx(0.8, abs=0.02)  # Adam goes down by its full rate each step
    assert scales[0] > scales[1] + 0.05


def test_ctrl_c_leaves_the_best_so_far(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Problem.gradient, []

    def stopping(self: Problem, *args: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr(Problem, "gradient", stopping)
    live = make_live(tiny_base, tiny_specialists[:2])
    settings = PositioningSettings(**PLAIN, steps=10)
    search, held_out = split_probe({"pairs": pairs()}, 0.25, 0, 0.05)
    with Trajectory(None) as record, pytest.raises(KeyboardInterrupt):
        searches.sgd(
            Problem(live, search, settings), Selection(search, held_out, settings, 0), record, seed=0
        )
    assert record.best is not None
    assert record.steps == 2


def test_a_loss_that_is_no_number_is_one_sentence(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    task = NearTo(torch.full((24, 16), math.nan))
    probe = {
        "broken": Probe("broken", task, Dataset.from_dict({"text": words(24, 0), "label": list(range(24))}))
    }
    with pytest.raises(SelfposError, match="loss of task broken on the probe is nan"):
        run(make_live(tiny_base, tiny_specialists[:2]), probe, steps=1)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({}, "holds no task"),
        (
            {"pairs": Probe("pairs", PairTask(), Dataset.from_dict({"anchor": [], "positive": []}))},
            "holds 0 records of task pairs",
        ),
        ({"pairs": pairs(3)}, "3 records of task pairs, too few with a held-out share of 0.25"),
    ],
)
def test_an_empty_probe_is_one_sentence(probe: dict, message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        split_probe(probe, 0.25, 0, 0.05)


def test_single_task_batches_visit_every_task_in_each_round(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    search, _ = split_probe({"pairs": pairs(), "graded": graded()}, 0.0, 0, 0.05)
    draws = Draws(search, 8, 0, single=True)
    rounds = [{draws.next()[0].task, draws.next()[0].task} for _ in range(5)]
    assert all(found == {"pairs", "graded"} for found in rounds)
    assert all(len(batch.columns[0]) == 4 for batch in Draws(search, 8, 0).next())
