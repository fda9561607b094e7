"""Sums of bfloat16 as they are stored: the same bits as by way of float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selfpos.errors import SelfposError
from selfpos.merging import merge, write
from selfpos.merging.halves import sums
from selfpos.merging.prepare import combine
from selfpos.merging.stream import Chunk
from selfpos.storage.numbers import from_float32, to_float32
from tests.helpers.folders import make_folder, random_state


def stored(count: int, size: int, scale: float = 1.0) -> list[np.ndarray]:
    generator = np.random.default_rng(size)
    return [
        from_float32((scale * generator.standard_normal(size)).astype(np.float32), "BF16")
        for _ in range(count)
    ]


def by_float32(bits: list[np.ndarray], coefficients: list[float]) -> np.ndarray:
    base, *tuned = (to_float32(values, "BF16") for values in bits)
    total = combine(Chunk("t", 0, base, [values - base for values in tuned], []), coefficients)
    return from_float32(total + base, "BF16")


@pytest.mark.parametrize(
    ("coefficients", "own"),  # θ0's own coefficient first, or none
    [
        ([0.5], False),
        ([1 / 3, 1 / 3, 1 / 3], False),
        ([-1.5, 3.0], False),
        ([0.0, 0.0], False),
        ([1.0, 0.3, -2.0], True),
        ([0.25, 0.5, 0.25, 0.1], True),
    ],
)
@pytest.mark.parametrize("scale", [1e-40, 1.0, 1e36])
def test_sums_are_those_of_float32(coefficients: list[float], own: bool, scale: float) -> None:
    bits = stored(len(coefficients) + 1 - own, 5000, scale)
    bits[-1][:64] = bits[0][:64] ^ np.uint16(1)  # half a unit in the last place is a tie
    found = np.empty_like(bits[0])
    with np.errstate(over="ignore"):
        for start, stop, piece in sums(bits, coefficients, [(0, 2048), (2048, 5000)]):
            assert piece is not None
            found[start:stop] = piece
    np.testing.assert_array_equal(found, by_float32(bits, coefficients))


def test_what_is_not_in_whole_words_or_not_finite_is_left() -> None:
    bits = stored(2, 101)
    bits[1][40] = 0x7F80  # infinity
    ranges = [(0, 40), (40, 60), (60, 101), (61, 101)]
    assert [piece is not None for *_, piece in sums(bits, [1.0], ranges)] == [True, False, False, False]


def half_precision(folder: Path, seed: int) -> Path:
    shapes = {
        "embeddings.word_embeddings.weight": (700, 200),
        "layer.0.weight": (7, 9),
        "layer.0.bias": (9,),
        "scale": (),
        "norm": (64,),
    }
    make_folder(folder, random_state(np.random.default_rng(seed), shapes=shapes))
    tensors = {
        name: values.to(torch.bfloat16) for name, values in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(("method", "params"), [("linear", {}), ("karcher", {"space": "models"})])
def test_folders_merge_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, params: dict[str, str]
) -> None:
    base, *tuned = (half_precision(tmp_path / f"m{seed}", seed) for seed in range(4))
    quick = merge(base, tuned, method, tmp_path / "quick", params=params)
    monkeypatch.setattr(write, "stored_halves", lambda stream, key: None)
    slow = merge(base, tuned, method, tmp_path / "slow", params=params)
    assert (quick.out / "model.safetensors").read_bytes() == (slow.out / "model.safetensors").read_bytes()


def test_damaged_numbers_are_named(tmp_path: Path) -> None:
    base, tuned = half_precision(tmp_path / "base", 0), half_precision(tmp_path / "tuned", 1)
    tensors = load_file(tuned / "model.safetensors")
    tensors["norm"][3] = float("nan")
    save_file(tensors, tuned / "model.safetensors")
    with pytest.raises(SelfposError, match=r"tuned/model\.safetensors: tensor norm holds nan at element 3"):
        merge(base, [tuned], "linear", tmp_path / "out")
    assert not (tmp_path / "out").exists()
