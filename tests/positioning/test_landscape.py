from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError
from selfpos.positioning.landscape import SPAN, measure_landscape, project


def test_projections_solve_least_squares() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 30))
    vectors[3] = 0.3 * vectors[0] - 0.7 * vectors[1]
    found = project(vectors @ vectors.T, ["a", "b", "far", "near"])
    plain, *_ = np.linalg.lstsq(vectors[:2].T, vectors[2], rcond=None)
    rest = np.linalg.norm(vectors[2] - plain @ vectors[:2]) / np.linalg.norm(vectors[2])
    assert (found["far"]["x"], found["far"]["y"], found["far"]["outside"]) == pytest.approx((*plain, rest))
    assert (found["near"]["x"], found["near"]["y"]) == pytest.approx((0.3, -0.7))
    assert found["near"]["outside"] == pytest.approx(0, abs=1e-6)
    assert (found["a"]["x"], found["a"]["y"]) == pytest.approx((1, 0), abs=1e-9)
    with pytest.raises(SelfposError, match="parallel"):
        project(np.array([[1.0, 2.0], [2.0, 4.0]]), ["a", "b"])


@pytest.fixture
def probe() -> dict[str, ProbeTask]:
    from datasets import Dataset

    from selfpos.tasks import get_task

    rows = [{"query": f"ab {letter}", "positive": f"c {letter} d"} for letter in "abcdefgh"]
    return {"retrieval": ProbeTask("retrieval", get_task("retrieval"), Dataset.from_list(rows))}


def test_the_loss_at_the_base_and_a_specialist_is_that_of_the_model_itself(
    tiny_base: Path,
    tiny_specialists: list[Path],
    probe: dict[str, ProbeTask],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.setattr("selfpos.positioning.landscape.SPAN", (0.0, 1.0))
    models = {folder.name: folder for folder in tiny_specialists}
    file = measure_landscape(
        tiny_base, models, ("alpha", "beta"), probe, tmp_path / "plane.json", grid=2, records=8
    )
    found = json.loads(file.read_text())
    for folder, (row, column) in ((tiny_base, (0, 0)), (models["alpha"], (0, 1)), (models["beta"], (1, 0))):
        model = SentenceTransformer(str(folder), device="cpu")
        texts = [[f"ab {letter}" for letter in "abcdefgh"], [f"c {letter} d" for letter in "abcdefgh"]]
        one, two = (
            torch.nn.functional.normalize(torch.as_tensor(model.encode(side)), dim=1) for side in texts
        )
        plain = torch.nn.functional.cross_entropy(one @ two.T / 0.05, torch.arange(8)).item()
        assert found["losses"][row][column]["retrieval"] == pytest.approx(plain, rel=1e-3)
    assert set(found["models"]) == {"base", "alpha", "beta", "gamma"}
    assert 0.5 < found["models"]["gamma"]["outside"] <= 1


def test_an_interrupted_landscape_goes_on(
    tiny_base: Path,
    tiny_specialists: list[Path],
    probe: dict[str, ProbeTask],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from selfpos.positioning.live import LiveModel

    models, file = {folder.name: folder for folder in tiny_specialists}, tmp_path / "plane.json"
    whole = json.loads(
        measure_landscape(
            tiny_base, models, ("alpha", "beta"), probe, tmp_path / "whole.json", grid=3, records=8
        ).read_text()
    )
    placed: list[float] = []
    place = LiveModel.place

    def stop_at(limit: float):  # type: ignore[no-untyped-def]
        def stopping(live: LiveModel, table: torch.Tensor) -> None:
            placed.append(table[0, 1].item())
            if len(placed) > limit:
                raise KeyboardInterrupt
            place(live, table)

        return stopping

    monkeypatch.setattr(LiveModel, "place", stop_at(4))
    with pytest.raises(KeyboardInterrupt):
        measure_landscape(tiny_base, models, ("alpha", "beta"), probe, file, grid=3, records=8)
    assert len(json.loads(file.read_text())["losses"]) == 1
    placed.clear()
    monkeypatch.setattr(LiveModel, "place", stop_at(math.inf))
    assert (
        json.loads(
            measure_landscape(
                tiny_base, models, ("alpha", "beta"), probe, file, grid=3, records=8
            ).read_text()
        )
        == whole
    )
    assert len(placed) == 6
    assert placed[0] == pytest.approx(sum(SPAN) / 2)


def test_wrong_names(
    tiny_base: Path, tiny_specialists: list[Path], probe: dict[str, ProbeTask], tmp_path: Path
) -> None:
    models = {folder.name: folder for folder in tiny_specialists}
    with pytest.raises(SelfposError, match="did you mean 'alpha'"):
        measure_landscape(tiny_base, models, ("alpah", "beta"), probe, tmp_path / "plane.json")
    with pytest.raises(SelfposError, match="twice"):
        measure_landscape(tiny_base, models, ("beta", "beta"), probe, tmp_path / "plane.json")
