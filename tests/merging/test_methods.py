"""Every method against its float64 reference, and the properties that the mathematics promises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from selfpos.merging import METHODS, get_method
from selfpos.merging.maths.matrices import join, leading_of_each
from selfpos.merging.maths.sparse import elect_and_join
from selfpos.merging.stream import Chunk
from tests.helpers import reference as ref
from tests.helpers.folders import difference, moved, random_state
from tests.helpers.merges import known_numbers, models, run, uniform

# What each method is run with: weights (or None), parameters. The weights are for three vectors; fewer take
# the first ones.
CASES: list[tuple[str, list[float] | None, dict[str, Any]]] = [
    ("average", None, {}),
    ("linear", None, {}),
    ("linear", [0.2, -0.5, 1.3], {}),
    ("task-arithmetic", [1.0, 0.5, 2.0], {"scale": 0.4}),
    ("slerp", None, {}),
    ("slerp", [1.0, 0.3, 2.0], {}),
    ("tensor-slerp", None, {"t": 0.3}),
    ("tensor-slerp", None, {"linear_above": 0.1}),
    ("nuslerp", None, {}),
    ("nuslerp", [1.0, 3.0, 1.0], {"space": "models"}),
    ("multi-slerp", None, {}),
    ("multi-slerp", [1.0, 2.0, 0.5], {"space": "models"}),
    ("multi-slerp", [0.4, 0.4, 0.4], {"normalize": False}),
    ("karcher", None, {}),
    ("karcher", [1.0, 2.0, 0.5], {"space": "models"}),
    ("model-stock", None, {}),
    ("norm-equalized", None, {}),
    ("norm-equalized", [1.0, 2.0, 0.5], {"exponent": 0.5, "scale": 2}),
    ("nearswap", None, {"t": 0.01}),
    ("ties", None, {}),
    ("ties", [1.0, 0.5, 2.0], {"density": 0.4, "scale": 0.7}),
    ("ties", [1.0, -0.5, 2.0], {"density": 0.5, "scope": "tensor", "normalize": False}),
    ("dare-linear", None, {}),
    ("dare-linear", [1.0, 0.5, 2.0], {"density": 0.2, "scale": 0.5, "normalize": True}),
    ("dare-linear", None, {"density": 0.3, "rescale": False}),
    ("dare-ties", [1.0, 0.5, 2.0], {"density": 0.8}),
    ("della-linear", None, {}),
    ("della-linear", [1.0, 0.5, 2.0], {"density": 0.3, "epsilon": 0.4, "rescale": False}),
    ("della-ties", None, {"density": 0.6, "epsilon": 0.1, "scale": 0.5}),
    ("della-ties", None, {"density": 1.0}),
    ("della-linear", None, {"density": 0.0}),
    ("breadcrumbs", None, {}),
    ("breadcrumbs", [1.0, 0.5, 2.0], {"density": 0.5, "gamma": 0.2, "normalize": True}),
    ("breadcrumbs-ties", None, {"density": 0.3, "gamma": 0.9}),
    ("sce", None, {}),
    ("sce", None, {"select": 0.5}),
    ("tsv-m", None, {"scale": 0.9}),
    ("tsv-m", [1.0, -0.5, 2.0], {"others": "sum"}),
    ("iso-c", None, {"scale": 1.5}),
    ("iso-cts", None, {"common": 0.4}),
    ("wudi", None, {"steps": 40, "learning_rate": 1e-3}),
    ("wudi", None, {"steps": 0, "scale": 0.5}),
    ("wudi", [1.0, -0.5, 2.0], {"steps": 40, "learning_rate": 1e-3}),
    ("wudi", [1.0, -0.5, 2.0], {"ridge": 0.5, "others": "sum"}),
]


def counts(method: str) -> list[int]:
    found = get_method(method)
    return [count for count in (1, 2, 3) if found.fewest <= count <= (found.most or 3)]


RUNS = [(count, *case) for case in CASES for count in counts(case[0])]


@pytest.mark.parametrize(("count", "method", "weights", "params"), RUNS)
def test_methods_match_float64(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    method: str,
    weights: list[float] | None,
    params: dict[str, Any],
) -> None:
    base, tuned = models(count, count)
    given = weights[:count] if weights else None
    options = {}
    if get_method(method).random:
        monkeypatch.setattr(Chunk, "uniform", known_numbers)
        options["uniform"] = uniform
    expected = ref.METHODS[method](
        {k: v.astype(np.float64) for k, v in base.items()},
        [difference(base, t) for t in tuned],
        given,
        **params,
        **options,
    )
    found = run(tmp_path, base, tuned, method, given, params)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=2e-6, rtol=1e-5, err_msg=key)


# Methods that look at data are tested in test_data_driven.py.
DATA_FREE = sorted(name for name in METHODS if not METHODS[name].probe)


def test_every_method_has_a_reference() -> None:
    assert set(DATA_FREE) == set(ref.METHODS) == {case[0] for case in CASES}


DEFAULTS: dict[str, dict[str, Any]] = {"nearswap": {"t": 10.0}}


@pytest.mark.parametrize("method", DATA_FREE)
def test_zero_vectors_leave_the_base(tmp_path: Path, method: str) -> None:
    base, _ = models(0, 0)
    for count in counts(method):
        found = run(tmp_path / str(count), base, [base] * count, method, params=DEFAULTS.get(method))
        for key, value in found.items():
            np.testing.assert_array_equal(value, 0, err_msg=f"{method} {count} {key}")


# What N equal vectors give: the vector itself for means, N times it for sums. Those not named here change a
# lone vector by design.
def test_karcher_of_weights_that_cancel_beside_a_zero_vector_is_the_weighted_mean() -> None:
    from selfpos.merging.methods.spheres import karcher

    vectors = np.array(
        [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    )  # the base, two vectors, and one without a direction
    assert karcher([1, -1, 1], vectors @ vectors.T) == [1.0, 1.0, -1.0, 1.0]


MEANS = [
    "average",
    "linear",
    "slerp",
    "tensor-slerp",
    "nuslerp",
    "multi-slerp",
    "karcher",
    "model-stock",
    "norm-equalized",
]


@pytest.mark.parametrize("method", MEANS)
def test_equal_inputs_give_themselves(tmp_path: Path, method: str) -> None:
    base, tuned = models(3, 1)
    for count in counts(method):
        if method == "tensor-slerp" and count == 1:
            continue  # interpolates with the base
        found = run(tmp_path / str(count), base, tuned * count, method)
        for key, value in difference(base, tuned[0]).items():
            np.testing.assert_allclose(found[key], value, atol=1e-6, err_msg=f"{method} {count} {key}")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        *((method, {"density": 1.0}) for method in ("ties", "dare-linear", "dare-ties", "della-linear")),
        *((method, {"density": 1.0}) for method in ("breadcrumbs", "breadcrumbs-ties")),
        ("nearswap", {"t": 99.0}),
        ("wudi", {}),
        ("sce", {"select": 1.0}),
    ],
)
def test_one_vector_untouched_gives_itself(tmp_path: Path, method: str, params: dict[str, Any]) -> None:
    base, tuned = models(4, 1)
    found = run(tmp_path, base, tuned, method, params=params)
    for key, value in difference(base, tuned[0]).items():
        np.testing.assert_allclose(found[key], value, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("cosine", [-0.5, -0.99])
def test_model_stock_of_vectors_at_wide_angles_is_the_base(tmp_path: Path, cosine: float) -> None:
    key = "layers.0.weight"
    base = {key: np.ones((2, 2), np.float32)}
    vectors = [[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]]
    tuned = [moved(base, {key: np.array([vector, vector], np.float32)}) for vector in vectors]
    np.testing.assert_array_equal(run(tmp_path, base, tuned, "model-stock")[key], 0)


ORDERED = {"slerp", "tensor-slerp"}
UNORDERED = [
    case
    for case in CASES
    if case[0] not in ORDERED
    and not get_method(case[0]).random
    and counts(case[0])[-1] > 1
    and case[1] is None
]


@pytest.mark.parametrize(("method", "weights", "params"), UNORDERED)
def test_the_order_of_vectors_does_not_matter(
    tmp_path: Path, method: str, weights: None, params: dict[str, Any]
) -> None:
    count = counts(method)[-1]
    base, tuned = models(5, count)
    one = run(tmp_path / "one", base, tuned, method, params=params)
    two = run(tmp_path / "two", base, tuned[::-1], method, params=params)
    for key, value in one.items():
        np.testing.assert_allclose(two[key], value, atol=2e-6, err_msg=f"{method} {key}")


def test_random_masks_keep_the_share_and_the_seed(tmp_path: Path) -> None:
    shapes = {"encoder.layer.0.w.weight": (400, 300), "b": (70_000,)}
    generator = np.random.default_rng(0)
    base = random_state(generator, shapes=shapes)
    tuned = moved(base, random_state(generator, shapes=shapes))
    vector = difference(base, tuned)
    for method in ("dare-linear", "della-linear"):
        params = {"density": 0.3} | ({"epsilon": 0.0} if method == "della-linear" else {})
        found = run(tmp_path / method, base, [tuned], method, params=params, seed=1)
        for key, value in found.items():
            kept = np.abs(value) > 1e-5 * np.abs(vector[key])
            np.testing.assert_allclose(value[kept], vector[key][kept] / 0.3, rtol=1e-4, atol=1e-6)
            assert abs(kept.mean() - 0.3) < 4 * np.sqrt(0.21 / kept.size), (method, key)
        again = run(tmp_path / f"{method}-again", base, [tuned], method, params=params, seed=1, threads=3)
        other = run(tmp_path / f"{method}-other", base, [tuned], method, params=params, seed=2)
        assert all(np.array_equal(found[key], again[key]) for key in found)
        assert not np.array_equal(found["b"], other["b"])


def test_masks_of_different_vectors_and_tensors_are_independent(tmp_path: Path) -> None:
    shapes = {"a": (50_000,), "b": (50_000,)}
    base = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    ones = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    found = run(tmp_path, base, [ones, ones], "dare-linear", [1.0, 10.0], {"density": 0.5, "rescale": False})
    first, second = (found["a"] % 10 > 0.5), found["a"] > 9
    for one, other in [(first, second), (first, found["b"] % 10 > 0.5)]:
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


@pytest.mark.slow
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(
    method=st.sampled_from(
        [
            name
            for name in DATA_FREE
            if not METHODS[name].random and name not in {"wudi", "tsv-m", "iso-c", "iso-cts"}
        ]
    ),
    seed=st.integers(0, 10_000),
    count=st.integers(1, 3),
    decimals=st.sampled_from([0, 8]),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_any_numbers_match_float64(
    tmp_path_factory: pytest.TempPathFactory, method: str, seed: int, count: int, decimals: int, scale: float
) -> None:
    """Whole numbers, exact in both arithmetics, bring ties, zeros and equal magnitudes."""
    found = get_method(method)
    count = max(found.fewest, min(count, found.most or count))
    generator = np.random.default_rng(seed)
    shapes = {
        "encoder.layer.0.w.weight": (int(generator.integers(1, 9)), int(generator.integers(1, 9))),
        "b": (int(generator.integers(1, 20)),),
    }
    base = {k: v.round(decimals) for k, v in random_state(generator, scale, shapes).items()}
    tuned = [
        moved(base, {k: (2 * v).round(decimals) for k, v in random_state(generator, scale, shapes).items()})
        for _ in range(count)
    ]
    params = DEFAULTS.get(method, {})
    vectors = [difference(base, state) for state in tuned]
    # Which of equal entries is left out is free there, and opposite directions have no mean.
    assume(
        decimals == 8
        or method
        not in {"breadcrumbs", "breadcrumbs-ties", "sce", "karcher", "multi-slerp", "slerp", "norm-equalized"}
    )
    result = run(tmp_path_factory.mktemp("any"), base, tuned, method, params=params)
    expected = ref.METHODS[method](
        {k: v.astype(np.float64) for k, v in base.items()}, vectors, None, **params
    )
    if method in {"ties"}:  # a sum that is zero but for rounding has no sign to agree on
        total = sum(ref.flat(vector) for vector in vectors)
        assume(not np.any((np.abs(total) < 1e-5 * scale) & (np.abs(total) > 0)))
    for key, value in expected.items():
        np.testing.assert_allclose(
            result[key], value, atol=5e-6 * scale, rtol=1e-4, err_msg=f"{method} {key}"
        )


@pytest.mark.slow
def test_long_tensors_pass_in_chunks_like_short_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same merge with chunks of seven elements."""
    import selfpos.merging.stream as stream
    import selfpos.vectors.parts as chunks

    base, tuned = models(6, 3)
    for index, (method, weights, params) in enumerate(CASES):
        count = counts(method)[-1]
        if get_method(method).random:
            continue
        given = weights[:count] if weights else None
        whole = run(tmp_path / f"whole{index}", base, tuned[:count], method, given, params)
        with monkeypatch.context() as patch:
            patch.setattr(stream, "CHUNK", 7)
            patch.setattr(stream, "TASK", 21)
            patch.setattr(chunks, "CHUNK", 7)
            cut = run(tmp_path / f"cut{index}", base, tuned[:count], method, given, params)
        for key, value in whole.items():
            np.testing.assert_allclose(cut[key], value, atol=1e-6, err_msg=f"{method} {key}")


@pytest.mark.parametrize(("method", "weights", "params"), [case for case in CASES if case[2].get("steps", 1)])
def test_kernels_run_on_torch_tensors_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    weights: list[float] | None,
    params: dict[str, Any],
) -> None:
    """The arithmetic of a device, on torch's CPU tensors: `cpu:0` takes the way that `cuda:0` takes."""
    monkeypatch.setattr(sys.modules["selfpos.merging.plan"], "check_device", lambda device: None)
    count = counts(method)[-1]
    base, tuned = models(9, count)
    given = weights[:count] if weights else None
    found = [
        run(tmp_path / device, base, tuned, method, given, params, device=device)
        for device in ("cpu", "cpu:0")
    ]
    for key, value in found[0].items():
        np.testing.assert_allclose(found[1][key], value, atol=2e-6, rtol=1e-5, err_msg=key)


def test_directions_that_a_vector_does_not_move_along_turn_no_others_in_tsv_m() -> None:
    generator = np.random.default_rng(1)
    low = (generator.normal(size=(96, 4)) @ generator.normal(size=(4, 96))).astype(np.float32)
    vectors = [low, generator.normal(size=(96, 96)).astype(np.float32), np.zeros((96, 96), np.float32)]

    def joined(first: np.ndarray) -> np.ndarray:
        left, values, right = join(np, leading_of_each(np, [first, *vectors[1:]], [1.0] * 3))
        return (left * values) @ right

    tensors = [torch.from_numpy(vector) for vector in vectors]
    left, values, right = join(torch, leading_of_each(torch, tensors, [1.0] * 3))
    np.testing.assert_allclose(((left * values) @ right).numpy(), joined(low), atol=1e-2)
    noise = 1e-7 * generator.normal(size=(96, 96)).astype(np.float32)
    np.testing.assert_allclose(joined(low + noise), joined(low), atol=1e-2)


@pytest.mark.parametrize(
    ("count", "weight"), [(2, 1.0), (2, -1.0), (3, 0.3), (255, 1.0), (256, 1.0), (600, 1.0)]
)
def test_the_election_divides_by_the_weights_of_all_that_agree(count: int, weight: float) -> None:
    # the first entry of all is 3, the second of one is against the others, the third is 0
    vectors = [np.array([3.0, -0.5 if index else 0.25, 0.0], np.float32) for index in range(count)]
    weights = [weight] * count
    wanted = np.array([3.0, -0.5, 0.0]) * np.sign(weight)
    found = elect_and_join(vectors, weights, normalize=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
