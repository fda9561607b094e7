"""The time that a dry run quotes: that of a part which is tried, scaled up."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.merging import estimate, plan
from selfpos.vectors.names import is_linear_map


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Key → its elements, of what is tried; a trial then takes a second for every element."""
    tried: dict[str, float] = {}

    def seconds(planned: estimate.Plan, keys: list[str]) -> float:
        tried.update({key: float(planned.base.tensors[key].numel) for key in keys})
        return sum(tried[key] for key in keys)

    monkeypatch.setattr(estimate, "_try", seconds)
    return tried


def test_a_part_is_scaled_to_the_whole(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    tried: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimate, "TRIED", 2000)
    planned = plan(tiny_base, tiny_specialists, "average", tmp_path / "out")
    merged = [key for key in planned.keys if key not in planned.tied]
    whole = sum(planned.base.tensors[key].numel for key in merged)
    assert estimate.seconds_of(planned) == pytest.approx(whole)
    assert 2000 <= sum(tried.values()) < whole / 2


def test_matrices_are_tried_once_for_each_shape(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    tried: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimate, "PATIENCE", float("inf"))
    planned = plan(tiny_base, tiny_specialists, "tsv-m", tmp_path / "out")
    shapes = {key: planned.base.tensors[key].shape for key in planned.keys if key not in planned.tied}
    matrices = {shape for key, shape in shapes.items() if is_linear_map(key, shape)}
    whole = sum(planned.base.tensors[key].numel for key in shapes)
    assert estimate.seconds_of(planned) == pytest.approx(whole)
    assert sorted(shapes[key] for key in tried if is_linear_map(key, shapes[key])) == sorted(matrices)


def test_a_slow_matrix_is_judged_by_a_smaller_one(
    tiny_base: Path,
    tiny_specialists: list[Path],
    tmp_path: Path,
    tried: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(estimate, "PATIENCE", 0.0)
    planned = plan(tiny_base, tiny_specialists, "tsv-m", tmp_path / "out")
    assert estimate.seconds_of(planned) > sum(tried.values())
    shapes = [planned.base.tensors[key].shape for key in tried]
    assert sum(is_linear_map(key, shape) for key, shape in zip(tried, shapes, strict=True)) == 1


@pytest.mark.parametrize("method", ["average", "ties", "tsv-m"])
def test_a_trial_leaves_nothing(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, method: str
) -> None:
    assert estimate.seconds_of(plan(tiny_base, tiny_specialists, method, tmp_path / "out")) > 0
    assert not list(tmp_path.iterdir())
