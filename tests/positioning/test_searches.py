"""The searches by forward passes, on small problems whose answer is known, and what is said about their
results."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset

from selfpos.errors import SelfposError
from selfpos.positioning import linearised, searches
from selfpos.positioning.draws import split_probe
from selfpos.positioning.live import LiveModel
from selfpos.positioning.position import SEARCHES, position
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Measurement, Rival, Selection, compare, verdict
from selfpos.positioning.trajectory import Trajectory
from selfpos.recipe import PositioningSettings
from tests.helpers.stand_ins import NearTo, Probe, graded, make_live, pairs, words

PLAIN = {"normalise": "none", "extrapolation": 0.0, "validation": 0.0, "compare": False}


def near(live: LiveModel, optimum: list[float], noise: float = 0.0) -> dict[str, Probe]:
    """A task whose loss is lowest (zero, without noise) at the coefficients `optimum`."""
    live.set_coefficients(torch.tensor(optimum, dtype=torch.float64).expand(len(live.keys), len(optimum)))
    texts = words(48, seed=4)
    with torch.no_grad():
        targets = live.embed(texts)
    targets = targets + noise * torch.randn(targets.shape, generator=torch.Generator().manual_seed(0))
    return {
        "near": Probe("near", NearTo(targets), Dataset.from_dict({"text": texts, "label": list(range(48))}))
    }


def run(
    live: LiveModel, probe: dict[str, Probe], path: Path | None = None, **options: object
) -> tuple[Problem, Trajectory, object]:
    settings = PositioningSettings(**{**PLAIN, **options})
    search, held_out = split_probe(probe, settings.validation, 0, settings.temperature)
    problem = Problem(live, search, settings)
    selection = Selection(search, held_out, settings, 0) if held_out else None
    if selection:
        selection.measure_base(live)
    with Trajectory(path) as record:
        around = SEARCHES[settings.search](problem, selection, record, seed=0)
    assert record.best is not None
    return problem, record, around


@pytest.mark.parametrize("optimum", [[1.0, 0.0, 0.0], [0.8, -0.3, 1.6]])
def test_linearised_finds_the_optimum_in_few_rounds(
    tiny_base: Path, tiny_specialists: list[Path], optimum: list[float]
) -> None:
    live = make_live(tiny_base, tiny_specialists)
    problem, record, _ = run(live, near(live, optimum), rounds=5)
    assert problem.mean_coefficients(record.best.parameters).tolist() == pytest.approx(optimum, abs=0.01)


def test_linearised_by_layer_finds_different_coefficients(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.positioning.problem.SHRINKAGE", 0.0)
    monkeypatch.setattr(linearised, "EARLY_SHARE", 1.0)
    live = make_live(tiny_base, tiny_specialists[:2])
    wanted = torch.full((len(live.keys), 2), 0.5, dtype=torch.float64)
    second = [row for row, key in enumerate(live.keys) if key.startswith("encoder.layer.1.")]
    wanted[second] = torch.tensor([1.5, 0.0], dtype=torch.float64)
    probe = near(live, [0.0, 0.0])
    live.set_coefficients(wanted)
    with torch.no_grad():
        probe["near"].type.targets = live.embed(probe["near"].dataset["text"][:])
    problem, record, _ = run(live, probe, granularity="layer", rounds=6)
    table = problem.table(record.best.parameters)
    assert table[second[0]].tolist() == pytest.approx([1.5, 0.0], abs=0.05)
    assert table[0].tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_the_linearised_embeddings_are_the_true_ones_to_first_order(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    live = make_live(tiny_base, tiny_specialists)
    problem, _, around = run(live, {"pairs": pairs()}, rounds=1, granularity="layer")
    generator = torch.Generator().manual_seed(0)
    errors = []
    for size in (0.1, 0.05):
        change = size * torch.randn(
            problem.start.shape, dtype=torch.float64, generator=generator.manual_seed(0)
        )
        problem.live.set_coefficients(problem.table(around.parameters + change))
        with torch.no_grad():
            true = problem.live.embed(around.table.texts)
        predicted = around.embeddings + torch.tensordot(
            (around.cells @ change).reshape(-1).float(), around.derivatives, 1
        )
        errors.append(float((predicted - true).norm() / (true - around.embeddings).norm()))
    assert errors[0] < 0.3
    assert errors[1] < 0.7 * errors[0]


def test_a_step_that_makes_things_worse_is_not_taken(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linearised, "RADIUS", 4.0)
    monkeypatch.setattr(linearised, "EARLY_SHARE", 1.0)
    path = tmp_path / "way.jsonl"
    run(make_live(tiny_base, tiny_specialists), {"pairs": pairs(), "graded": graded()}, path, rounds=4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    taken = [line for line in lines if line.get("ratio", 0) >= linearised.ACCEPT]
    assert taken
    assert all(line["after"] < line["before"] for line in taken)
    assert all(
        later["before"] == pytest.approx(earlier["after"]) for earlier, later in itertools.pairwise(taken)
    )
    refused = [number for number, line in enumerate(lines) if line.get("ratio", 1) < linearised.ACCEPT]
    assert all(
        lines[number + 1]["radius"] < lines[number]["radius"] for number in refused if number + 1 < len(lines)
    )


def test_a_price_on_extrapolation_brings_coefficients_back(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    live = make_live(tiny_base, tiny_specialists[:2])
    probe = near(live, [1.8, -0.6])
    found = []
    for price in (0.0, 0.02, 10.0):
        problem, record, _ = run(live, probe, extrapolation=price, rounds=5)
        found.append(problem.mean_coefficients(record.best.parameters))
    assert found[0].tolist() == pytest.approx([1.8, -0.6], abs=0.02)
    assert 1.05 < found[1][0] < 1.75
    assert found[2].tolist() == pytest.approx([1.0, 0.0], abs=0.05)


def test_selection_counts_what_tasks_lose_against_the_base(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    settings = PositioningSettings()
    search, held_out = split_probe({"pairs": pairs(), "graded": graded()}, 0.5, 0, 0.05)
    selection = Selection(search, held_out, settings, 0)
    base = selection.measure_base(make_live(tiny_base, tiny_specialists))
    fallen = {**base.scores, "pairs": base.scores["pairs"] - 0.105, "graded": base.scores["graded"] + 0.2}
    mean = sum(fallen.values()) / 2
    assert selection.value({}, fallen) == pytest.approx(-mean + 0.1)
    assert selection.value({}, base.scores) == pytest.approx(base.value)


def test_loss_softmax_is_the_formula(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "TEMPERATURE", 0.5)
    path = tmp_path / "way.jsonl"
    problem, record, _ = run(
        make_live(tiny_base, tiny_specialists), {"pairs": pairs()}, path, search="loss-softmax"
    )
    losses = np.array([json.loads(line)["losses"]["pairs"] for line in path.read_text().splitlines()][:3])
    shares = np.exp(-losses / 0.5) / np.exp(-losses / 0.5).sum()
    assert problem.mean_coefficients(record.best.parameters).tolist() == pytest.approx(shares.tolist())


def test_a_search_does_not_know_the_order_of_its_vectors(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    found = []
    for sources in (tiny_specialists, tiny_specialists[::-1]):
        problem, record, _ = run(make_live(tiny_base, sources), {"pairs": pairs(), "graded": graded()})
        found.append(problem.mean_coefficients(record.best.parameters).tolist())
    assert found[0] == pytest.approx(found[1][::-1], abs=1e-3)
    assert len({round(c, 3) for c in found[0]}) > 1


def test_cma_es_comes_near_the_optimum(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    pytest.importorskip("cma")
    live = make_live(tiny_base, tiny_specialists[:2])
    problem, record, _ = run(live, near(live, [1.2, 0.2]), search="cma-es", evaluations=120)
    assert problem.mean_coefficients(record.best.parameters).tolist() == pytest.approx([1.2, 0.2], abs=0.05)


def test_cma_es_without_its_package_is_one_sentence(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(SelfposError, match="needs the package cma"):
        run(make_live(tiny_base, tiny_specialists), {"pairs": pairs()}, search="cma-es")


def test_intervals_hold_the_truth_and_narrow_with_less_noise(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    widths = []
    for noise in (0.02, 0.2):
        live = make_live(tiny_base, tiny_specialists[:2])
        problem, record, around = run(live, near(live, [0.9, 0.4], noise), rounds=3)
        found = problem.mean_coefficients(record.best.parameters).tolist()
        spread = around.coefficient_spread(seed=0)
        intervals = [(c + low, c + high) for c, (low, high) in zip(found, spread, strict=True)]
        assert all(low <= c <= high for c, (low, high) in zip(found, intervals, strict=True))
        assert all(low - 0.1 <= c <= high + 0.1 for c, (low, high) in zip([0.9, 0.4], intervals, strict=True))
        widths.append(intervals[0][1] - intervals[0][0])
    assert widths[0] < 0.5 * widths[1]


def test_a_position_is_compared_with_what_needs_no_search(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    probe = {"pairs": pairs(), "graded": graded()}
    found = position(tiny_base, tiny_specialists, probe, PositioningSettings(rounds=1), seed=0, device="cpu")
    assert [rival.name for rival in found.rivals][:4] == ["base", "alpha", "beta", "gamma"]
    assert found.rivals[4].name.startswith("task arithmetic")
    assert set(found.scores) == {"pairs", "graded"}
    for rival in found.rivals:
        assert rival.gain == pytest.approx(
            sum(found.scores[task] - score for task, score in rival.scores.items()) / 2
        )
        assert rival.low <= rival.high
    assert len(found.intervals) == 3
    assert found.verdict


def test_the_scale_of_task_arithmetic_is_that_of_the_best_mean_measure() -> None:
    """Whether or not a task falls below the base there, which the value of a point would count."""

    def measure(live: SimpleNamespace) -> Measurement:
        scale = float(live.at[0, 0])
        items = np.full(10, 0.5 + 0.3 * (1 - abs(scale - 0.75)))
        return Measurement({}, {"task": items.mean()}, scale, {"task": {"hit": items}})

    live = SimpleNamespace(keys=["w"], vectors=[SimpleNamespace(name="alpha"), SimpleNamespace(name="beta")])
    live.set_coefficients = lambda table: setattr(live, "at", table)
    score = SimpleNamespace(score_of=lambda items, chosen: float(items["hit"][chosen].mean()))
    selection = SimpleNamespace(base=None, measures={"task": score}, measure=measure)
    live.set_coefficients(torch.tensor([[0.75, 0.75]]))
    rivals = compare(live, selection, measure(live), seed=0)
    assert rivals[-1].name == "task arithmetic 0.75"
    assert rivals[-1].gain == pytest.approx(0, abs=1e-6)


def test_the_verdict_names_what_is_not_beaten() -> None:
    close, far = Rival("task arithmetic 0.75", {}, 0.003, -0.004, 0.01), Rival("base", {}, 0.05, 0.03, 0.07)
    assert "not clearly better than task arithmetic 0.75 (+0.3 points, -0.4 to +1.0)" in verdict([close, far])
    assert "base" not in verdict([close, far])
    assert verdict([far]).startswith("better than base, specialists and task arithmetic")


def test_a_derivative_table_that_does_not_fit_is_one_sentence(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linearised, "MEMORY", 1000)
    with pytest.raises(SelfposError, match="use a coarser granularity"):
        run(make_live(tiny_base, tiny_specialists), {"pairs": pairs()})
