"""Adapters trained on the code that a model brings, which keeps matrices whole that transformers cuts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from selfpos.errors import SelfposError
from selfpos.merging import merge
from tests.helpers.adapters import edit_json, state
from tests.helpers.families import SMALL, make_family

MODULES = [
    ("NomicBertConfig", "encoder.layers.1.attn.Wqkv"),
    ("NomicBertConfig", "encoder.layers.0.attn.out_proj"),
    ("GteConfig", "encoder.layer.1.attention.qkv_proj"),
    ("GteConfig", "encoder.layer.0.mlp.up_gate_proj"),
]


def adapter(folder: Path, module: str, shape: tuple[int, ...], **more: torch.Tensor) -> np.ndarray:
    """Write random factors, and `more` beside them; returns their product in float64."""
    torch.manual_seed(0)
    a, b = 0.1 * torch.randn(2, shape[1]), 0.1 * torch.randn(shape[0], 2)
    factors = {"lora_A.weight": a, "lora_B.weight": b} | more
    folder.mkdir()
    stored = {f"base_model.model.{module}.{name}": value for name, value in factors.items()}
    save_file(stored, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [module]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    product: np.ndarray = 2 * b.double().numpy() @ a.double().numpy()
    return product


@pytest.mark.parametrize(("config", "module"), MODULES)
def test_factors_move_the_stored_matrix(config: str, module: str, tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", config, SMALL)
    before, key = state(base), f"{module}.weight"
    product = adapter(tmp_path / "adapter", module, before[key].shape)
    after = state(merge(base, [tmp_path / "adapter"], "average", tmp_path / "out").out)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value + (product if name == key else 0), atol=1e-6)


def test_norms_of_rows_and_biases_are_cut_as_the_matrix_is(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "GteConfig", SMALL)
    before, module = state(base), "encoder.layer.1.attention.qkv_proj"
    weight, bias = before[f"{module}.weight"], before[f"{module}.bias"]
    torch.manual_seed(1)
    magnitude, shift = torch.rand(len(weight)), torch.randn(len(bias))
    more = {"lora_magnitude_vector": magnitude, "lora_B.bias": shift}
    moved = weight + adapter(tmp_path / "adapter", module, weight.shape, **more)
    edit_json(tmp_path / "adapter" / "adapter_config.json", use_dora=True, lora_bias=True)
    after = state(merge(base, [tmp_path / "adapter"], "average", tmp_path / "out").out)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    expected = moved * magnitude.double().numpy()[:, None] / lengths
    np.testing.assert_allclose(after[f"{module}.weight"], expected, atol=1e-6)
    np.testing.assert_allclose(after[f"{module}.bias"], bias + 2 * shift.double().numpy(), atol=1e-6)


def test_parts_of_factors_make_no_adapter(tmp_path: Path) -> None:
    base = make_family(tmp_path / "base", "NomicBertConfig", SMALL)
    module = "encoder.layers.0.attn.Wqkv"
    adapter(tmp_path / "adapter", module, state(base)[f"{module}.weight"].shape)
    with pytest.raises(SelfposError, match="would not fit; write a model instead"):
        merge(base, [tmp_path / "adapter"], "linear", tmp_path / "out", output="adapter")
