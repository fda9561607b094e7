"""Separated vectors: they interfere less, are applied by wudi, and left alone where they cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from selfpos.errors import OperationError, SelfposError
from selfpos.merging import merge, plan
from selfpos.positioning import separated as module
from selfpos.positioning.live import LiveModel
from selfpos.positioning.separated import matrices, merge_method, separated, separates, shares
from selfpos.recipe import PositioningSettings
from selfpos.searched_merge import plan_search
from selfpos.storage.model_folder import open_model
from selfpos.vectors import TaskVector, open_vectors

COEFFICIENTS = [0.7, -0.2, 1.4]


@pytest.fixture
def vectors(tiny_base: Path, tiny_specialists: list[Path]) -> list[TaskVector]:
    return open_vectors(open_model(tiny_base), tiny_specialists)


def test_shares_are_the_solution_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    shared = np.outer(generator.normal(size=24), generator.normal(size=36))
    given = [(shared + 0.1 * generator.normal(size=(24, 36))).astype(np.float32) for _ in COEFFICIENTS]
    scaled = [matrix / np.linalg.norm(matrix) for matrix in given]
    pull = np.sqrt(3 / 36) * np.eye(36)  # the mean eigenvalue of Σ V_iᵀ V_i / ‖V_i‖² is 3 / 36
    wanted = [c * matrix @ inputs.T for c, matrix, inputs in zip(COEFFICIENTS, given, scaled, strict=True)]
    wanted.append(sum(c * matrix for c, matrix in zip(COEFFICIENTS, given, strict=True)) @ pull)
    solution = np.linalg.lstsq(np.vstack([*scaled, pull]), np.hstack(wanted).T, rcond=None)[0].T
    found = sum(c * share for c, share in zip(COEFFICIENTS, shares(given), strict=True))
    np.testing.assert_allclose(found, solution, atol=1e-5)


def test_vectors_that_share_no_inputs_stay_as_they_are_and_one_that_does_not_move_changes_none() -> None:
    first, second = np.zeros((2, 8, 6), np.float32)
    first[:, :3], second[:, 3:] = 1.0, -2.0
    for share, matrix in zip(shares([first, second]), (first, second), strict=True):
        np.testing.assert_allclose(share, matrix, atol=1e-6)
    with_still = shares([first, second, np.zeros_like(first)])
    np.testing.assert_allclose(with_still[:2], shares([first, second]), atol=1e-6)
    assert not with_still[2].any() and not shares([np.zeros_like(first)] * 2)[0].any()


def test_the_live_model_and_the_merge_agree(
    tiny_base: Path, tiny_specialists: list[Path], vectors: list[TaskVector], tmp_path: Path
) -> None:
    live = LiveModel(vectors[0].base, separated(vectors))
    live.set_coefficients(torch.tensor(COEFFICIENTS, dtype=torch.float64).expand(len(live.keys), 3))
    out = tmp_path / "merged"
    merge(tiny_base, tiny_specialists, out=out, weights=COEFFICIENTS, **merge_method(True))
    written = open_model(out)
    for key, parameter in live.parameters.items():
        torch.testing.assert_close(parameter.detach(), written.read(key).float(), rtol=1e-5, atol=1e-6)


def test_a_damaged_matrix_is_left_for_those_who_name_it(vectors: list[TaskVector]) -> None:
    key = matrices(vectors[0].base)[0]
    values = vectors[1].values(key)
    values[0, 0] = np.nan
    vectors[1].parts[key] = module.InMemory(values.reshape(-1))
    assert np.isnan(separated(vectors)[1].values(key)[0, 0])


@pytest.mark.parametrize(
    ("given", "count", "expected"), [(None, 3, True), (True, 3, True), (False, 3, False), (None, 1, False)]
)
def test_when(vectors: list[TaskVector], given: bool | None, count: int, expected: bool) -> None:
    assert separates(vectors[:count], PositioningSettings(separate=given)) is expected


def test_checkpoints_of_one_training_stay_as_they_are(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    twins = open_vectors(open_model(tiny_base), [tiny_specialists[0]] * 2)
    assert not separates(twins, PositioningSettings())
    assert separates(twins, PositioningSettings(separate=True))


def test_other_searches_take_the_vectors_as_they_are(vectors: list[TaskVector]) -> None:
    assert not separates(vectors, PositioningSettings(search="sgd"))


def test_models_too_large_are_separated_when_asked(
    vectors: list[TaskVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 10)
    assert not separates(vectors, PositioningSettings())
    assert separates(vectors, PositioningSettings(separate=True))


def test_rivals_are_the_specialists_before_separation(
    tiny_base: Path, tiny_specialists: list[Path], vectors: list[TaskVector]
) -> None:
    live = LiveModel(vectors[0].base, separated(vectors), specialists=vectors)
    live.set_specialist(1)
    written = open_model(tiny_specialists[1])
    for key, parameter in live.parameters.items():
        torch.testing.assert_close(parameter.detach(), written.read(key).float(), rtol=1e-5, atol=1e-6)


def test_excluded_matrices_are_left_alone(vectors: list[TaskVector]) -> None:
    keys = matrices(vectors[0].base, ["*attention*"])
    assert keys
    assert not any("attention" in key for key in keys)
    first, *_ = (key for key in matrices(vectors[0].base) if "attention" in key)
    kept = separated(vectors, exclude=["*attention*"])[0]
    np.testing.assert_array_equal(kept.values(first), vectors[0].values(first))


def test_a_full_disk_is_refused_before_it_is_written(
    vectors: list[TaskVector], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OperationError, match="set TMPDIR to a folder on a larger disk, or 'separate: false'"):
        separated(vectors)


def test_without_the_memory_for_it_the_vectors_stay_as_they_are(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def method(budget: int, **settings: bool) -> str:
        rows = plan_search(
            str(tiny_base), tiny_specialists, PositioningSettings(**settings), out, budget=budget, threads=1
        )
        return dict(rows)["method"].partition(":")[0]

    out = tmp_path / "out"
    enough = plan(tiny_base, tiny_specialists, "linear", out, threads=1).memory
    assert method(enough * 2) == "wudi"
    assert method(enough + 1000) == "linear"
    assert "the vectors are taken as they are, not separated: method wudi needs" in caplog.text
    with pytest.raises(SelfposError, match=r"\(--memory\), or take the vectors as they are"):
        method(enough + 1000, separate=True)


def test_one_adapter_is_made_of_adapters_as_they_are(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(SelfposError, match="alpha is a whole model, not low-rank"):
        plan_search(
            str(tiny_base), tiny_specialists, PositioningSettings(), tmp_path / "out", output="adapter"
        )
