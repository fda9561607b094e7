"""Granularity: which tensors share their coefficients, and how finer coefficients lean on coarser ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selfpos.errors import unknown

GRANULARITIES = ("model", "kind", "layer-group", "layer", "tensor")
_NUMBERED = re.compile(r"^(?P<layer>(?:[^.]*\.)*?(?P<number>\d+))\.")


@dataclass(frozen=True)
class Hierarchy:
    """Groups of tensors whose effective parameters are a sum over levels: the model's row + its layer's offset + its tensor's offset.

    `rows` names the parameter rows (the model's first), `lookup` (T, R) is 1 where a tensor takes part in a row: effective parameters of
    all tensors = lookup @ parameters. Offsets start at zero and are what shrinkage pulls back to zero.
    """

    rows: list[str]
    lookup: Tensor

    def offset_shares(self, squared: Tensor) -> Tensor:
        """How much of each vector lies in each row, (R, N), from its squared length in each tensor, (T, N); 0 for the model's row."""
        total = squared.sum(0, keepdim=True)
        shares = self.lookup.T @ squared / torch.where(total > 0, total, torch.ones_like(total))
        shares[0] = 0
        return shares


def hierarchy(keys: Sequence[str], granularity: str, *, layer_groups: int = 4) -> Hierarchy:
    """The hierarchy of the tensors `keys` for one of `GRANULARITIES`; `layer_groups` is the number of groups of consecutive layers."""
    levels: dict[str, list[list[str]]] = {
        "model": [],
        "kind": [[kind_of(key) for key in keys]],
        "layer-group": [_layer_groups(keys, layer_groups)],
        "layer": [[layer_of(key) for key in keys]],
        "tensor": [[layer_of(key) for key in keys], list(keys)],
    }
    if granularity not in levels:
        raise unknown("granularity", granularity, levels)
    rows, columns = ["model"], [torch.ones(len(keys), dtype=torch.float64)]
    for level in levels[granularity]:
        for name in dict.fromkeys(level):
            column = torch.tensor([float(member == name) for member in level], dtype=torch.float64)
            if not any(
                torch.equal(column, other) for other in columns
            ):  # a layer of one tensor needs no second offset
                rows.append(name)
                columns.append(column)
    return Hierarchy(rows, torch.stack(columns, 1))


def layer_of(key: str) -> str:
    """The layer a tensor belongs to: its name up to the first number (`encoder.layer.3`), else its first part (`embeddings`)."""
    found = _NUMBERED.match(key)
    return found["layer"] if found else key.split(".")[0]


def kind_of(key: str) -> str:
    """What a tensor is part of: norm, embedding, attention, mlp or other, by the names that encoders give their modules."""
    name = key.lower()
    kinds = {
        "norm": r"norm|\bln_|_ln\b|\bln\b",
        "embedding": r"embed|\bwte\b|\bwpe\b|\bshared\b",
        "attention": r"att",
        "mlp": r"mlp|intermediate|output\.dense|ffn|feed_forward|\bff\b|\bfc\d?\b|lin[12]\b|densereludense",
    }
    return next((kind for kind, pattern in kinds.items() if re.search(pattern, name)), "other")


def _layer_groups(keys: Sequence[str], count: int) -> list[str]:
    numbers = {key: int(found["number"]) for key in keys if (found := _NUMBERED.match(key))}
    depth = max(numbers.values(), default=0) + 1
    size = max(1, -(-depth // count))
    names = []
    for key in keys:
        if key not in numbers:
            names.append(layer_of(key))
            continue
        first = numbers[key] // size * size
        names.append(f"layers {first}-{min(first + size, depth) - 1}")
    return names
