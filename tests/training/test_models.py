from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfpos.errors import SelfposError
from selfpos.recipe import LoraSettings, TrainingSettings
from selfpos.training.models import choose_precision, load_trainable

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("asked", "device", "has_bf16", "expected"),
    [
        ("auto", GPU, True, "bf16"),
        ("auto", GPU, False, "float32"),
        ("auto", CPU, True, "float32"),
        ("float32", GPU, True, "float32"),
        ("bf16", GPU, True, "bf16"),
        ("fp16", GPU, False, "fp16"),
    ],
)
def test_precision_follows_the_device(
    asked: str, device: torch.device, has_bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
    assert choose_precision(asked, device) == expected


@pytest.mark.parametrize(("asked", "device"), [("bf16", CPU), ("fp16", CPU), ("bf16", GPU)])
def test_precision_that_cannot_be_had_is_refused(
    asked: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    with pytest.raises(
        SelfposError,
        match="Old GPU does not compute in bf16" if device == GPU else f"precision {asked} needs a GPU",
    ):
        choose_precision(asked, device)


def test_a_lora_model_trains_its_adapter_alone(tiny_base: Path) -> None:
    model = load_trainable(tiny_base, TrainingSettings(lora=LoraSettings(rank=2)))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert all(weight.requires_grad for weight in load_trainable(tiny_base, TrainingSettings()).parameters())


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(SelfposError, match="does not load as a sentence-transformers model"):
        load_trainable(tmp_path / "x", TrainingSettings())
