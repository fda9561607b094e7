"""CMA-ES and LM-Cocktail on small problems whose answer is known, and the selection of points."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from selfpos.errors import SelfposError
from selfpos.positioning import searches
from selfpos.positioning.draws import split_probe
from selfpos.positioning.live import LiveModel
from selfpos.positioning.position import SEARCHES
from selfpos.positioning.problem import Problem
from selfpos.positioning.selection import Selection
from selfpos.positioning.trajectory import Trajectory
from selfpos.recipe import PositioningSettings
from tests.helpers.stand_ins import NearTo, Probe, graded, make_live, pairs, words

PLAIN = {"normalise": "none", "validation": 0.0, "compare": False}


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
) -> tuple[Problem, Trajectory]:
    settings = PositioningSettings(**{**PLAIN, **options})
    search, held_out = split_probe(probe, settings.validation, 0, settings.temperature)
    problem = Problem(live, search, settings)
    selection = Selection(search, held_out, settings, 0) if held_out else None
    if selection:
        selection.measure_base(live)
    with Trajectory(path) as record:
        SEARCHES[settings.search](problem, selection, record, seed=0)
    assert record.best is not None
    return problem, record


def test_selection_counts_what_tasks_lose_against_the_base(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    settings = PositioningSettings()
    search, held_out = split_probe({"pairs": pairs(), "graded": graded()}, 0.5, 0, 0.05)
    selection = Selection(search, held_out, settings, 0)
    base = selection.measure_base(make_live(tiny_base, tiny_specialists))
    fallen = {**base.scores, "pairs": base.scores["pairs"] - 0.105, "graded": base.scores["graded"] + 0.2}
    mean = sum(fallen.values()) / 2
    assert selection.value(fallen) == pytest.approx(-mean + 0.1)
    assert selection.value(base.scores) == pytest.approx(base.value)


def test_loss_softmax_is_the_formula(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "TEMPERATURE", 0.5)
    path = tmp_path / "way.jsonl"
    problem, record = run(
        make_live(tiny_base, tiny_specialists), {"pairs": pairs()}, path, search="loss-softmax"
    )
    losses = np.array([json.loads(line)["losses"]["pairs"] for line in path.read_text().splitlines()][:3])
    shares = np.exp(-losses / 0.5) / np.exp(-losses / 0.5).sum()
    assert problem.mean_coefficients(record.best.parameters).tolist() == pytest.approx(shares.tolist())


def test_cma_es_comes_near_the_optimum(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    pytest.importorskip("cma")
    live = make_live(tiny_base, tiny_specialists[:2])
    problem, record = run(live, near(live, [1.2, 0.2]), search="cma-es", evaluations=120)
    assert problem.mean_coefficients(record.best.parameters).tolist() == pytest.approx([1.2, 0.2], abs=0.05)


def test_cma_es_without_its_package_is_one_sentence(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(SelfposError, match="needs the package cma"):
        run(make_live(tiny_base, tiny_specialists), {"pairs": pairs()}, search="cma-es")
