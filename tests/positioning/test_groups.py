"""Which tensors share coefficients."""

from __future__ import annotations

import torch

from selfpos.positioning.problem import hierarchy

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
    levels = hierarchy(KEYS, "tensor")
    assert levels.rows[0] == "model"
    assert "encoder.layer.3" in levels.rows
    assert "2_Dense/linear" in levels.rows
    assert "2_Dense/linear.weight" not in levels.rows  # its layer has no other tensor
    assert levels.lookup.sum(1).max() == 3
    offsets = torch.zeros(len(levels.rows), 1, dtype=torch.float64)
    offsets[0], offsets[levels.rows.index("encoder.layer.3")] = 1, 0.25
    effective = (levels.lookup @ offsets).squeeze(1)
    assert {key for key, value in zip(KEYS, effective.tolist(), strict=True) if value == 1.25} == {
        key for key in KEYS if key.startswith("encoder.layer.3.")
    }


def test_shares_of_a_row_are_of_the_whole_vector() -> None:
    levels = hierarchy(KEYS, "layer")
    squared = torch.ones(len(KEYS), 2, dtype=torch.float64)
    squared[:, 1] = 0
    shares = levels.offset_shares(squared)
    assert shares[0].tolist() == [0, 0]
    assert shares[levels.rows.index("encoder.layer.0")].tolist() == [2 / len(KEYS), 0]
