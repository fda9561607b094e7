"""Packed layers give what torch's own give, and leave the model as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.passes import OPERATORS, packed_layers


@pytest.fixture(autouse=True)
def avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed layers are used whatever the processor has: oneDNN computes them on any."""
    import torch

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def test_the_numbers_are_those_of_the_model_and_it_is_left_as_it_was(tiny_base: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_base), device="cpu").eval()
    linear = [module for module in model.modules() if type(module) is torch.nn.Linear]
    texts = ["a b c", "d", "a b c d e f g"]
    plain = model.encode(texts)
    with packed_layers(model) as count:
        assert count == len(linear)
        assert sum("forward" in vars(module) for module in model.modules()) == count
        named = [type(module).__name__ for module in model.modules() if "forward" in vars(module)]
        assert "BertIntermediate" in named  # the product and its GELU are one
        assert abs(model.encode(texts) - plain).max() < 1e-6
    assert not any("forward" in vars(module) for module in model.modules())
    assert (model.encode(texts) == plain).all()


@pytest.mark.parametrize("reason", ["bfloat16", "too large", "no oneDNN", "AVX2"])
def test_where_it_does_not_fit_nothing_is_changed(
    reason: str, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_base), device="cpu")
    if reason == "bfloat16":
        model = model.to(torch.bfloat16)
    elif reason == "too large":
        monkeypatch.setattr("selfpos.passes.MOST_BYTES", 1000)
    elif reason == "AVX2":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    else:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with packed_layers(model) as count:
        assert count == 0
        assert not any("forward" in vars(module) for module in model.modules())


def test_torch_has_the_operators() -> None:
    import torch

    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN")
    for name in OPERATORS:
        assert hasattr(torch.ops.mkldnn, name), (
            f"torch no longer has mkldnn.{name}: scoring on a CPU is slower"
        )
