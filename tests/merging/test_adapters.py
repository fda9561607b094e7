"""Adapters as the output of a merge: exact, truncated to a rank, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.merging import merge
from tests.helpers import reference as ref
from tests.helpers.adapters import make_adapter

ADAPTERS: list[dict[str, Any]] = [
    {"r": 4, "target_modules": ["query", "word_embeddings"]},
    {
        "r": 2,
        "use_rslora": True,
        "target_modules": ["query", "value"],
        "rank_pattern": {"layer.1.attention.self.query": 3},
    },
]


@pytest.mark.parametrize("plain", [True, False])
def test_adapters_merge_to_one_adapter(tiny_base: Path, tmp_path: Path, plain: bool) -> None:
    """Exact by concatenation: the adapter that PEFT loads does what the merged model does."""
    import torch
    from peft import PeftModel
    from transformers import AutoModel

    for index, options in enumerate(ADAPTERS):
        make_adapter(tiny_base, tmp_path / f"a{index}", seed=index, plain=plain, **options)
    sources = [tmp_path / "a0", tmp_path / "a1"]
    weights = [0.7, -0.4]
    model = merge(tiny_base, sources, "linear", tmp_path / "model", weights=weights).out
    adapter = merge(tiny_base, sources, "linear", tmp_path / "adapter", weights=weights, output="adapter")
    assert (adapter.out / "modules.json").exists() != plain and not (
        adapter.out / "model.safetensors"
    ).exists()
    loaded = (
        PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_base), adapter.out)
        .merge_and_unload()
        .state_dict()
    )
    for key, value in ref.load(model).items():
        if "/" not in key:
            np.testing.assert_allclose(loaded[key].double().numpy(), value, atol=2e-6, err_msg=key)
    if not plain:
        from sentence_transformers import SentenceTransformer

        texts = ["a b c", "d e"]
        whole, low = (SentenceTransformer(str(folder), device="cpu") for folder in (model, adapter.out))
        np.testing.assert_allclose(low.encode(texts), whole.encode(texts), atol=2e-5)
    assert torch.is_grad_enabled()
    again = merge(tiny_base, [adapter.out], "average", tmp_path / "again").out
    for key, value in ref.load(model).items():
        np.testing.assert_allclose(ref.load(again)[key], value, atol=2e-6)


def test_adapters_truncated_to_a_rank_report_the_error(tiny_base: Path, tmp_path: Path) -> None:
    for index in range(2):
        make_adapter(tiny_base, tmp_path / f"a{index}", seed=index, plain=True, r=4, target_modules=["query"])
    sources = [tmp_path / "a0", tmp_path / "a1"]
    exact, cut = (
        merge(tiny_base, sources, "slerp", tmp_path / f"r{rank}", output="adapter", rank=rank)
        for rank in (99, 3)
    )
    assert exact.manifest["merge"]["truncation"] == {"rank": 99, "error": 0.0, "worst": None}
    base = ref.load(tiny_base)
    models = [
        ref.load(merge(tiny_base, [made.out], "average", tmp_path / f"m{i}").out)
        for i, made in enumerate((exact, cut))
    ]
    dropped = whole = 0.0
    for key, value in base.items():
        vectors = [model[key] - value for model in models]
        if np.any(vectors[0]):
            sigma = np.linalg.svd(vectors[0], compute_uv=False)
            np.testing.assert_allclose(
                np.linalg.norm(vectors[0] - vectors[1]), np.linalg.norm(sigma[3:]), rtol=1e-3
            )
            dropped, whole = dropped + np.sum(sigma[3:] ** 2), whole + np.sum(sigma**2)
    report = cut.manifest["merge"]["truncation"]
    assert (
        report["error"] == pytest.approx(np.sqrt(dropped / whole), rel=1e-4)
        and report["worst"]["error"] >= report["error"]
    )
    assert json.loads((cut.out / "adapter_config.json").read_text())["r"] == 3


@pytest.mark.parametrize("rank", [None, 1])
def test_damaged_factors_make_no_adapter(tiny_base: Path, tmp_path: Path, rank: int | None) -> None:
    make_adapter(tiny_base, tmp_path / "a", plain=True, r=2, target_modules=["query"])
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    tensors["base_model.model.encoder.layer.1.attention.self.query.lora_B.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "a" / "adapter_model.safetensors")
    with pytest.raises(
        SelfposError,
        match=r"a/adapter_model\.safetensors: the factors of tensor encoder\.layer\.1\.attention\.self",
    ):
        merge(tiny_base, [tmp_path / "a"], "linear", tmp_path / "out", output="adapter", rank=rank)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_not_low_rank_makes_no_adapter(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    make_adapter(tiny_base, tmp_path / "a", plain=True)
    make_adapter(tiny_base, tmp_path / "dora", plain=True, use_dora=True)
    for sources, method, message in [
        ([tmp_path / "a"], "ties", "method ties does not make a low-rank result"),
        ([tmp_path / "a", tiny_specialists[0]], "linear", "alpha is a whole model, not low-rank"),
        ([tmp_path / "dora"], "linear", "dora moves"),
        ([tmp_path / "a"], "tensor-slerp", "scales the base too"),
    ]:
        with pytest.raises(SelfposError, match=message):
            merge(tiny_base, sources, method, tmp_path / "out", output="adapter")
    assert not (tmp_path / "out").exists()
