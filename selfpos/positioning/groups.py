"""Granularity: which tensors share their coefficients, and how finer coefficients lean on coarser ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfpos.vectors.names import layer_name


@dataclass(frozen=True)
class Hierarchy:
    """Effective parameters of a tensor: the model's row + its layer's offset + its own offset.

    `rows` names the parameter rows (the model's first), `lookup` (T, R) is 1 where a tensor takes part in a
    row: effective parameters of all tensors = lookup @ parameters. Offsets start at zero and are pulled back
    to zero.
    """

    rows: list[str]
    lookup: Tensor

    def offset_shares(self, squared: Tensor) -> Tensor:
        """The share of each vector in each row, (R, N), from its squared length in each tensor, (T, N)."""
        total = squared.sum(0, keepdim=True)
        shares = self.lookup.T @ squared / torch.where(total > 0, total, torch.ones_like(total))
        shares[0] = 0  # the model's row is no offset
        return shares


def hierarchy(keys: Sequence[str], granularity: str) -> Hierarchy:
    """The hierarchy of the tensors `keys` for granularity `model`, `layer` or `tensor`."""
    levels: dict[str, list[list[str]]] = {
        "model": [],
        "layer": [[layer_name(key) for key in keys]],
        "tensor": [[layer_name(key) for key in keys], list(keys)],
    }
    rows, columns = ["model"], [torch.ones(len(keys), dtype=torch.float64)]
    for level in levels[granularity]:
        for name in dict.fromkeys(level):
            column = torch.tensor([float(member == name) for member in level], dtype=torch.float64)
            if not any(
                torch.equal(column, other) for other in columns
            ):  # a layer of one tensor needs one offset
                rows.append(name)
                columns.append(column)
    return Hierarchy(rows, torch.stack(columns, 1))
