"""Weights and parameters by tensor: depth, ramps, rules; and thresholds against sorting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfpos.errors import SelfposError
from selfpos.merging import get_method
from selfpos.merging.maths import thresholds
from selfpos.merging.maths.thresholds import kept
from selfpos.merging.settings import fits, make_settings, ramp
from selfpos.merging.stream import Stream
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors
from selfpos.vectors.names import depths, is_embedding, layer_number
from tests.helpers.folders import make_folder

NAMES = {
    "embeddings.word_embeddings.weight": None,
    "encoder.layer.3.attention.self.query.weight": 3,  # BERT
    "transformer.layer.2.ffn.lin1.weight": 2,  # DistilBERT
    "encoder.block.5.layer.1.DenseReluDense.wi.weight": 5,  # T5
    "layers.11.mlp.gate_proj.weight": 11,  # Qwen3, Gemma3, Mistral, ModernBERT
    "pooler.dense.weight": None,
    "2_Dense/linear.weight": None,
}


def test_layers_and_embeddings_by_name() -> None:
    for key, layer in NAMES.items():
        assert layer_number(key) == layer, key
    assert [key for key in NAMES if is_embedding(key)] == ["embeddings.word_embeddings.weight"]
    assert is_embedding("encoder.relative_attention_bias.weight")  # MPNet
    assert is_embedding("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")  # T5
    assert (
        is_embedding("shared.weight") and is_embedding("embed_tokens.weight") and is_embedding("wte.weight")
    )
    found = depths(
        ["embeddings.word_embeddings.weight", "layers.0.w", "layers.1.w", "layers.2.w", "norm.weight"]
    )
    assert list(found.values()) == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert depths(["layers.0.w", "norm.weight"]) == {"layers.0.w": 0.0, "norm.weight": 1.0}


def test_ramps_and_rules() -> None:
    assert [ramp("0..1..0", depth, "") for depth in (0, 0.25, 0.5, 1)] == [0, 0.5, 1, 0]
    assert ramp("-1..1", 0.5, "") == 0
    assert (
        fits("layers.2-5", "encoder.block.5.layer.1.w")
        and not fits("layers.2-5", "layers.6.w")
        and fits("layers.3", "layers.3.w")
    )
    assert (
        fits("*.attention.*", "layer.0.attention.w")
        and not fits("attention", "layer.0.attention.w")
        and fits("default", "anything")
    )
    assert fits("2_Dense/*", "2_Dense/linear.weight") and not fits("layers.0", "2_Dense/linear.weight")


KEYS = ["embed.weight", "layers.0.a.weight", "layers.1.a.weight", "layers.2.b.weight", "norm.weight"]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, [[1, 1]] * 5),
        ([0.5, 2], [[0.5, 2]] * 5),
        (["1e-3", "2"], [[0.001, 2]] * 5),  # YAML takes 1e-3 for a word
        (["0..1", 3], [[0, 3], [0, 3], [0.5, 3], [1, 3], [1, 3]]),
        ([{"layers.0-1": 0.3, "default": 0.7}, 1], [[0.7, 1], [0.3, 1], [0.3, 1], [0.7, 1], [0.7, 1]]),
        ({"*.a.*": [1, 2], "default": [3, "0..4"]}, [[3, 0], [1, 2], [1, 2], [3, 4], [3, 4]]),
        (0.5, [[0.5, 0.5]] * 5),
        ("0..1", [[0, 0], [0, 0], [0.5, 0.5], [1, 1], [1, 1]]),
        ({"layers.0": 2}, [[1, 1], [2, 2], [1, 1], [1, 1], [1, 1]]),
        ([{"layers.2": 5}, 2], [[1, 2], [1, 2], [1, 2], [5, 2], [1, 2]]),
        ({"default": 1, "layers.0-5": 0.3}, [[1, 1], [0.3, 0.3], [0.3, 0.3], [0.3, 0.3], [1, 1]]),
        ({"layers.*": 2, "*": 3, "default": 4}, [[3, 3], [2, 2], [2, 2], [2, 2], [3, 3]]),
    ],
)
def test_weights_by_tensor(weights: Any, expected: list[list[float]]) -> None:
    found = make_settings(get_method("task-arithmetic"), 2, weights, {}, KEYS)
    assert [found.weights(key) for key in KEYS] == expected


def test_parameters_by_tensor() -> None:
    given = {"density": [0.1, {"default": 0.2, "layers.1": "0.2..0.4", "layers.*": 0.5}], "scope": "tensor"}
    with pytest.raises(SelfposError, match=r"rule 'layers.7' fits no tensor"):
        make_settings(get_method("ties"), 2, None, {"density": {"layers.7": 0.3}}, KEYS)
    found = make_settings(get_method("ties"), 2, None, given, KEYS)
    assert [found.params(key)["density"] for key in KEYS] == [
        [0.1, 0.2],
        [0.1, 0.5],
        [0.1, pytest.approx(0.3)],
        [0.1, 0.5],
        [0.1, 0.2],
    ]
    assert found.constant("scope") == "tensor"


@pytest.mark.parametrize(
    ("weights", "params", "message"),
    [
        ([1, 2, 3], {}, "3 weights for 2 vectors"),
        ({"default": "x"}, {}, "must be numbers"),
        ([1, "a..b"], {}, "a ramp is numbers"),
        ([1, "x"], {}, "must be numbers"),
        ([True, 1], {}, "must be numbers"),
        (None, {"density": "0..2"}, "between 0 and 1, found 2.0"),
        (None, {"density": {"layers.2": 7, "default": 0.1}}, "found 7"),
        ({"layers.*": 1, "layers.1": 2}, {}, "weights: the rule 'layers.1' never counts"),
        ([1, {"default": {"layers.9": 1}}], {}, "weights: the rule 'layers.9' fits no tensor"),
        (None, {"density": {"layers.0": 0.1, "default": 0.3}}, "set scope to tensor"),
        (None, {"scope": {"default": "tensor"}}, "one for the whole merge"),
    ],
)
def test_wrong_rules(weights: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        make_settings(get_method("ties"), 2, weights, params, KEYS)


@pytest.mark.parametrize(
    ("method", "weights", "params", "message"),
    [
        ("nuslerp", [1, -1], {}, r"divides the weights by their sum, which is 0 for \[1.0, -1.0\]"),
        ("karcher", [1, -1], {}, "method karcher divides"),
        ("multi-slerp", [{"layers.1": -1, "default": 1}, 1], {}, "method multi-slerp divides"),
        ("linear", [1, -1], {"normalize": True}, "method linear divides"),
        ("dare-linear", [1, -1], {"normalize": True}, "method dare-linear divides"),
        ("slerp", [1, -1], {}, r"a_i \+ a_j, which is 0"),
        ("della-linear", None, {"density": 0.95}, r"between 0 and 1, found 0.95 ± 0.1; make epsilon smaller"),
        (
            "della-ties",
            None,
            {"density": 0.1},
            r"above 0 where .* found 0.1 ± 0.1; make epsilon smaller, or set rescale to false",
        ),
    ],
)
def test_what_cannot_work_together(method: str, weights: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        make_settings(get_method(method), 2, weights, params, KEYS)


@pytest.mark.parametrize(
    ("method", "weights", "params"),
    [
        ("linear", [1, -1], {}),
        ("multi-slerp", [1, -1], {"normalize": False}),
        ("della-linear", None, {"density": [0.0, 1.0]}),
        ("della-linear", None, {"density": 0.1, "rescale": False}),
    ],
)
def test_what_works_though_it_looks_alike(method: str, weights: Any, params: dict[str, Any]) -> None:
    settings = make_settings(get_method(method), 2, weights, params, KEYS)
    assert settings.weights(KEYS[0]) == (weights or [1.0, 1.0])
    density = params.get("density", [])
    assert settings.params(KEYS[0]).get("density", []) == (
        density if isinstance(density, list) else [density, density]
    )


def test_one_threshold_needs_one_density(tmp_path: Path) -> None:
    from selfpos.merging import merge
    from tests.helpers.merges import models

    base, tuned = models(0, 1)
    make_folder(tmp_path / "base", base)
    make_folder(tmp_path / "one", tuned[0])
    params: dict[str, Any] = {"density": {"layers.0": 0.1, "default": 0.5}}
    with pytest.raises(SelfposError, match="set scope to tensor"):
        merge(tmp_path / "base", [tmp_path / "one"], "ties", tmp_path / "out", params=params)
    merge(
        tmp_path / "base", [tmp_path / "one"], "ties", tmp_path / "out", params=params | {"scope": "tensor"}
    )


def stream_of(folder: Path, values: np.ndarray) -> Stream:
    base = open_model(make_folder(folder / "base", {"w": np.zeros_like(values)}))
    vectors = open_vectors(base, [make_folder(folder / "v", {"w": values})])
    return Stream(base, vectors, ("w",), make_settings(get_method("ties"), 1, None, {}))


def sorted_threshold(values: np.ndarray, count: int) -> float:
    return float(np.sort(np.abs(values).ravel())[values.size - count]) if count else float("inf")


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), share=st.floats(0, 1), decimals=st.sampled_from([0, 1, 8]), order=st.booleans()
)
def test_thresholds_equal_sorting(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, decimals: int, order: bool
) -> None:
    """Through the bracket, and through the histogram when the bracket misses: sorted values make the sample
    of each chunk's beginning lie."""
    values = np.random.default_rng(seed).standard_normal(3000).round(decimals).astype(np.float32)
    if order:
        values.sort()
    stream = stream_of(tmp_path_factory.mktemp("t"), values)
    count = kept(share, values.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "AT_ONCE", 10)
        patch.setattr("selfpos.merging.stream.CHUNK", 500)
        for scope in ("model", "tensor"):
            found = thresholds.thresholds(stream, lambda key, numel: [[count, kept(0.5, numel)]], scope)  # type: ignore[arg-type]
            assert found["w"][0] == [sorted_threshold(values, count), sorted_threshold(values, 1500)]


def test_a_missed_bracket_is_found_by_histogram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    stream = stream_of(tmp_path, values)
    monkeypatch.setattr(thresholds, "AT_ONCE", 10)
    monkeypatch.setattr(thresholds, "_bracket", lambda sample, rank, total: (90.0, 91.0))
    for count in (1, 700, 4999, 5000):
        found = thresholds.thresholds(stream, lambda key, numel, count=count: [[count]], "tensor")  # type: ignore[misc]
        assert found["w"][0][0] == sorted_threshold(values, count)


def test_shares_round_up() -> None:
    assert [kept(share, 10) for share in (0, 0.1, 0.11, 0.3, 1)] == [0, 1, 2, 3, 10]
    assert kept(0.01, 1) == 1 and kept(0.2, 109_483_008) == 21_896_602
