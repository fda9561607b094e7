"""The kernels of Fisher and RegMean, given statistics: against float64, least squares, and what the
mathematics promises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from selfpos.vectors.names import is_linear_map
from tests.helpers.folders import SHAPES, State, difference
from tests.helpers.merges import models, run

LAYERS = [key for key, shape in SHAPES.items() if is_linear_map(key, shape)]


def write(folder: Path, name: str, states: list[State]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}{index}.safetensors" for index in range(len(states))]
    for file, state in zip(files, states, strict=True):
        save_file({key: value.astype(np.float32) for key, value in state.items()}, file)
    return {"statistics": {name: files}}


def information(seed: int, count: int, zeros: float = 0.3) -> list[State]:
    """Random Fisher information over six decades, some of it zero, of all tensors but one."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        state = {
            key: 10 ** generator.uniform(-4, 2, shape) * (generator.random(shape) > zeros)
            for key, shape in SHAPES.items()
        }
        del state["encoder.layer.2.conv.weight"]
        found.append({key: np.asarray(value).reshape(SHAPES[key]) for key, value in state.items()})
    return found


def activations(seed: int, count: int, rows: int = 40) -> list[State]:
    """Random inputs of every linear layer, with correlated columns."""
    generator = np.random.default_rng(seed)
    return [
        {
            key: generator.standard_normal((rows, SHAPES[key][1]))
            @ generator.standard_normal((SHAPES[key][1], SHAPES[key][1]))
            for key in LAYERS
        }
        for _ in range(count)
    ]


def grams(inputs: list[State]) -> list[State]:
    return [{key: x.T @ x / len(x) for key, x in state.items()} for state in inputs]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 3),
    floor=st.sampled_from([0.0, 1e-6, 0.5]),
    weighted=st.booleans(),
)
def test_fisher_matches_float64(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, floor: float, weighted: bool
) -> None:
    folder = tmp_path_factory.mktemp("fisher")
    base, tuned = models(seed, count)
    known = information(seed, count)
    weights = [1.0, 0.0, 2.5][:count] if weighted else [1.0] * count
    found = run(folder, base, tuned, "fisher", weights, {"floor": floor}, **write(folder, "fisher", known))
    for key in base:
        vectors = np.stack([difference(base, state)[key] for state in tuned])
        scale = np.array(weights).reshape(-1, *[1] * base[key].ndim)
        shares = (
            scale * (np.stack([state[key].astype(np.float32).astype(np.float64) for state in known]) + floor)
            if key in known[0]
            else scale
        )
        shares = np.where(shares.sum(0) == 0, scale, shares)
        np.testing.assert_allclose(
            found[key], (shares * vectors).sum(0) / shares.sum(0), atol=1e-6, rtol=1e-5, err_msg=key
        )


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("alpha", "weights"), [(0.9, None), (0.0, None), (0.6, [1.0, 0.5, 2.0])])
def test_regmean_matches_its_closed_form(
    tmp_path: Path, count: int, alpha: float, weights: list[float] | None
) -> None:
    base, tuned = models(count, count)
    known = grams(activations(count, count))
    scale = weights[:count] if weights else [1.0] * count
    found = run(
        tmp_path,
        base,
        tuned,
        "regmean",
        weights and scale,
        {"alpha": alpha},
        **write(tmp_path, "gram", known),
    )
    for key, value in base.items():
        states = [state[key].astype(np.float64) for state in tuned]
        if key in LAYERS:
            inner = [
                w * np.where(np.eye(len(state[key])) > 0, 1, alpha) * state[key]
                for w, state in zip(scale, known, strict=True)
            ]
            expected = sum(state @ g for state, g in zip(states, inner, strict=True)) @ np.linalg.inv(
                sum(inner)
            )
        else:
            expected = np.average(states, axis=0, weights=scale)
        np.testing.assert_allclose(found[key], expected - value, atol=1e-5, rtol=1e-4, err_msg=key)


def test_regmean_of_linear_models_is_the_regression_on_all_their_data(tmp_path: Path) -> None:
    """The outputs of N linear models on their own inputs, fitted by one linear model: ordinary least squares
    over all rows."""
    base, tuned = models(7, 3)
    inputs = activations(7, 3)
    found = run(
        tmp_path, base, tuned, "regmean", None, {"alpha": 1.0}, **write(tmp_path, "gram", grams(inputs))
    )
    for key in LAYERS:
        x = np.concatenate([state[key] for state in inputs])
        y = np.concatenate(
            [state[key] @ one[key].astype(np.float64).T for state, one in zip(inputs, tuned, strict=True)]
        )
        fitted, *_ = np.linalg.lstsq(x, y, rcond=None)
        np.testing.assert_allclose(base[key] + found[key], fitted.T, atol=1e-4, rtol=1e-3, err_msg=key)


def test_what_no_input_reaches_stays_at_the_mean(tmp_path: Path) -> None:
    base, tuned = models(8, 2)
    key = "encoder.layer.0.dense.weight"
    seen = np.random.default_rng(8).standard_normal((2, 40, 3))
    known = [{key: np.zeros((6, 6))} for _ in range(2)]
    for state, x in zip(known, seen, strict=True):
        state[key][:3, :3] = x.T @ x / 40
    found = run(
        tmp_path / "some", base, tuned, "regmean", None, {"alpha": 1.0}, **write(tmp_path, "gram", known)
    )[key]
    vectors = [difference(base, state)[key] for state in tuned]
    np.testing.assert_allclose(found[:, 3:], np.mean(vectors, axis=0)[:, 3:], atol=1e-6)
    g = [state[key][:3, :3] for state in known]
    np.testing.assert_allclose(
        found[:, :3],
        sum(v[:, :3] @ one for v, one in zip(vectors, g, strict=True)) @ np.linalg.inv(sum(g)),
        atol=1e-4,
    )
    nothing = run(
        tmp_path / "none", base, tuned, "regmean", **write(tmp_path, "gram", [{key: np.zeros((6, 6))}] * 2)
    )[key]
    np.testing.assert_allclose(nothing, np.mean(vectors, axis=0), atol=1e-6)


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_chunks_threads_and_devices_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    import selfpos.merging.stream as stream
    import selfpos.vectors.parts as chunks

    base, tuned = models(9, 3)
    known = (
        write(tmp_path, "fisher", information(9, 3))
        if method == "fisher"
        else write(tmp_path, "gram", grams(activations(9, 3)))
    )
    whole = run(tmp_path / "whole", base, tuned, method, **known)
    monkeypatch.setattr(sys.modules["selfpos.merging.plan"], "check_device", lambda device: None)
    moved = run(tmp_path / "device", base, tuned, method, device="cpu:0", **known)
    monkeypatch.setattr(stream, "CHUNK", 7)
    monkeypatch.setattr(stream, "TASK", 21)
    monkeypatch.setattr(chunks, "CHUNK", 7)
    cut = run(tmp_path / "cut", base, tuned, method, threads=3, **known)
    for key, value in whole.items():
        np.testing.assert_allclose(moved[key], value, atol=2e-6, rtol=1e-5, err_msg=key)
        np.testing.assert_allclose(cut[key], value, atol=1e-6, err_msg=key)
