"""Which tensors share coefficients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfpos.positioning.problem import Problem, hierarchy
from selfpos.recipe import PositioningSettings
from tests.helpers.stand_ins import make_live

KEYS = [
    "embeddings.word_embeddings.weight",
    "embeddings.LayerNorm.weight",
    *(
        f"encoder.layer.{n}.{part}"
        for n in range(6)
        for part in ("attention.self.query.weight", "output.dense.weight")
    ),
    "pooler.dense.weight",
    "2_Dense/linear.weight",
]


def test_effective_parameters_are_sums_over_levels() -> None:
    names, lookup = hierarchy(KEYS, "tensor")
    assert names[0] == "model"
    assert "encoder.layer.3" in names
    assert "2_Dense/linear" in names
    assert "2_Dense/linear.weight" not in names  # its layer has no other tensor
    assert lookup.sum(1).max() == 3
    offsets = torch.zeros(len(names), 1, dtype=torch.float64)
    offsets[0], offsets[names.index("encoder.layer.3")] = 1, 0.25
    effective = (lookup @ offsets).squeeze(1)
    assert {key for key, value in zip(KEYS, effective.tolist(), strict=True) if value == 1.25} == {
        key for key in KEYS if key.startswith("encoder.layer.3.")
    }


def test_shares_of_a_row_are_of_the_whole_vector(tiny_base: Path, tiny_specialists: list[Path]) -> None:
    live = make_live(tiny_base, [tiny_specialists[0], tiny_base])
    problem = Problem(live, {}, PositioningSettings(granularity="layer"))
    lengths = {key: float(live.vectors[0].delta(key).square().sum()) for key in live.keys}
    layer = sum(length for key, length in lengths.items() if key.startswith("encoder.layer.0."))
    assert problem.offset_shares[0].tolist() == [0, 0]
    shares = problem.offset_shares[problem.rows.index("encoder.layer.0")]
    assert shares.tolist() == [pytest.approx(layer / sum(lengths.values()), rel=1e-5), 0]
