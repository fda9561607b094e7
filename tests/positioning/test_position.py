"""From folders to coefficients."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.positioning import Position, position
from selfpos.positioning.problem import Problem
from selfpos.recipe import PositioningSettings
from tests.positioning.stand_ins import graded, pairs


def find(base: Path, sources: list[Path], path: Path | None = None, **options: object) -> Position:
    settings = PositioningSettings(**{"search": "sgd", "space": "spherical", "steps": 4, "batch_size": 16, **options})
    return position(base, sources, {"pairs": pairs(), "graded": graded()}, settings, seed=3, trajectory=path, device="cpu")


def test_a_position_says_what_was_found(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    found = find(tiny_base, tiny_specialists, tmp_path / "trajectory.jsonl", evaluate_every=2)
    assert found.names == ["alpha", "beta", "gamma"]
    assert len(found.coefficients) == 3
    assert set(found.parameters) == {"a[alpha]", "a[beta]", "a[gamma]", "lambda"}
    assert set(found.losses) == {"pairs", "graded"}
    assert found.tensors is None
    assert found.steps == 4
    assert found.step in (0, 2, 4)
    assert len((tmp_path / "trajectory.jsonl").read_text().splitlines()) == 4 + 3


def test_finer_coefficients_come_by_tensor(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = find(tiny_base, tiny_specialists, space="linear", granularity="layer", learning_rate=0.05, validation=0.0)
    assert found.tensors is not None
    first, second = (found.tensors[f"encoder.layer.{n}.attention.self.query.weight"] for n in (0, 1))
    assert first != second
    assert first == found.tensors["encoder.layer.0.output.dense.weight"]


def test_one_vector_alone(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = find(tiny_base, tiny_specialists[:1], validation=0.0)
    assert found.coefficients == [pytest.approx(found.parameters["lambda"])]


def test_duplicate_vectors_share_what_one_would_get(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    found = find(tiny_base, [tiny_specialists[0]] * 2, space="linear", validation=0.0, penalty=0.0)
    assert found.coefficients[0] == pytest.approx(found.coefficients[1])
    assert sum(found.coefficients) == pytest.approx(1, abs=0.2)


def test_equal_seeds_give_equal_positions(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    first, second = (find(tiny_base, tiny_specialists) for _ in range(2))
    assert first.coefficients == second.coefficients
    assert json.dumps(first.losses) == json.dumps(second.losses)


def test_ctrl_c_returns_the_best_so_far(tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Problem, *args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Problem, "gradient", stop)
    found = find(tiny_base, tiny_specialists)
    assert found.interrupted
    assert (found.step, found.steps) == (0, 0)


def test_no_vector_is_one_sentence(tiny_base: Path) -> None:
    with pytest.raises(SelfposError, match="no task vector to position"):
        find(tiny_base, [])


def test_all_tensors_excluded_is_one_sentence(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    with pytest.raises(SelfposError, match="exclude them all"):
        find(tiny_base, tiny_specialists, exclude=["*"])


def test_a_pattern_that_fits_nothing_is_one_sentence(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    with pytest.raises(SelfposError, match=r"the pattern '\*embedings\*' of exclude fits no tensor"):
        find(tiny_base, tiny_specialists, exclude=["*embedings*"])


def test_a_specialist_with_nan_weights_is_named(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_specialists[1], tmp_path / "broken")
    tensors = load_file(tmp_path / "broken" / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SelfposError, match="task vector broken has no finite length"):
        find(tiny_base, [tiny_specialists[0], tmp_path / "broken"])


def test_a_base_without_tokenizer_is_one_sentence(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> None:
    """Transformers would make one up that knows five tokens."""
    shutil.copytree(tiny_base, tmp_path / "base")
    for file in [*tmp_path.glob("base/tokenizer*"), *tmp_path.glob("base/vocab*"), *tmp_path.glob("base/special_tokens_map.json")]:
        file.unlink()
    with pytest.raises(SelfposError, match="has no tokenizer"):
        find(tmp_path / "base", tiny_specialists)


def test_a_small_probe_for_the_papers_preset_is_said(
    tiny_base: Path, tiny_specialists: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    position(tiny_base, tiny_specialists, {"pairs": pairs()}, PositioningSettings(preset="paper", steps=1), seed=0, device="cpu")
    assert "the paper has 32,000 records, here are 24" in caplog.text


def test_vectors_of_length_zero_leave_the_base(tiny_base: Path) -> None:
    found = find(tiny_base, [tiny_base, tiny_base], validation=0.0)
    assert len(found.coefficients) == 2
    assert np.isfinite(found.coefficients).all()
