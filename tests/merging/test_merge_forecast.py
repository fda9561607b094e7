"""The time that a dry run quotes: that of a part which is tried, scaled up."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from selfpos.merging import forecast, plan
from selfpos.merging.plan import Plan
from selfpos.vectors.names import is_linear_map


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Key → its elements, of what is tried; a trial then takes a second for every element."""
    tried: dict[str, float] = {}

    def seconds(planned: Plan, keys: list[str]) -> float:
        tried.update({key: float(planned.base.tensors[key].numel) for key in keys})
        return sum(tried[key] for key in keys)

    monkeypatch.setattr(forecast, "_try", seconds)
    return tried


@pytest.fixture
def average(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> Plan:
    return plan(tiny_base, tiny_specialists, "average", tmp_path / "out")


@pytest.fixture
def tsv(tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path) -> Plan:
    return plan(tiny_base, tiny_specialists, "tsv-m", tmp_path / "out")


def test_a_part_is_scaled_to_the_whole(
    average: Plan, tried: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "TRIED", 2000)
    assert forecast.seconds_of(average) == pytest.approx(sum(_sizes(average).values()))
    assert 2000 <= sum(tried.values()) < sum(_sizes(average).values()) / 2


def test_matrices_are_tried_once_for_each_shape(
    tsv: Plan, tried: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "PATIENCE", float("inf"))
    assert forecast.seconds_of(tsv) == pytest.approx(sum(_sizes(tsv).values()))
    assert sorted(_matrices(tsv, tried)) == sorted(set(_matrices(tsv, _sizes(tsv))))


def test_a_slow_matrix_is_judged_by_a_smaller_one(
    tsv: Plan, tried: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "PATIENCE", 0.0)
    assert forecast.seconds_of(tsv) > sum(tried.values())
    assert len(_matrices(tsv, tried)) == 1


def _sizes(planned: Plan) -> dict[str, int]:
    """Key → elements, of what `planned` merges."""
    return {key: planned.base.tensors[key].numel for key in planned.keys if key not in planned.tied}


def _matrices(planned: Plan, keys: Iterable[str]) -> list[tuple[int, ...]]:
    """The shapes of the linear maps among `keys`."""
    shapes = [(key, planned.base.tensors[key].shape) for key in keys]
    return [shape for key, shape in shapes if is_linear_map(key, shape)]


@pytest.mark.parametrize("method", ["average", "ties", "tsv-m"])
def test_a_trial_leaves_nothing(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, method: str
) -> None:
    assert forecast.seconds_of(plan(tiny_base, tiny_specialists, method, tmp_path / "out")) > 0
    assert not list(tmp_path.iterdir())
