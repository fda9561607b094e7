"""Learned coefficients as a file, which `selfpos merge --coefficients` applies again to the same bytes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.positioning.separated import merge_method
from selfpos.storage.atomic import write_text
from selfpos.storage.documents import parse_json, read_text

FORMATS: dict[str, dict[str, Any]] = {
    "selfpos coefficients 1": merge_method(False),
    # how the search separated vectors before
    "selfpos coefficients 2": {"method": "tsv-m", "params": {"others": "sum"}},
    "selfpos coefficients 3": merge_method(True),
}
"""Format → the merge that applies the coefficients: those of separated vectors fit no others."""


@dataclass(frozen=True)
class Coefficients:
    """c_i of Σ c_i V_i: one a vector in `values`, or for each tensor and vector in `tensors`, which wins.

    The vectors are recognised by `hashes`, the content hashes of their models; `base_name` and `base` are
    name and hash of the base. `found_by` describes the search, as the manifest of its merge does.
    `method` says which merge applies them, one of those in FORMATS.
    """

    names: list[str]
    hashes: list[str]
    values: list[float]
    tensors: dict[str, list[float]] | None
    base_name: str
    base: str
    found_by: dict[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=lambda: merge_method(False))

    @property
    def merge_options(self) -> dict[str, Any]:
        """Keywords of the merge that applies them: method, weights, the search's seed, and its facts."""
        return {
            **self.method,
            **({"seed": self.found_by["seed"]} if "seed" in self.found_by else {}),
            "weights": as_weights(self.values, self.tensors),
            "provenance": {"positioning": self.found_by},
        }

    def order(self, hashes: Sequence[str], base: str, file: Path) -> list[int]:
        """The index of each of the file's vectors among models of content hashes `hashes`.

        Raises SelfposError, naming `file`, when they are other vectors or have another base than `base`.
        """
        if base != self.base:
            raise SelfposError(
                f"{file} was made with the base {self.base_name} (content hash {self.base[:12]}…); "
                f"the base given has {base[:12]}…"
            )
        if Counter(hashes) != Counter(self.hashes):
            missing = [
                name
                for name, file_hash in zip(self.names, self.hashes, strict=True)
                if file_hash not in hashes
            ]
            named = f"{', '.join(missing)} of the content hash that it names"
            wanted = named if missing else f"these {len(self.names)} vectors alone"
            raise SelfposError(
                f"{file} holds coefficients of {', '.join(self.names)}, and the vectors given are not those: "
                f"give {wanted}"
            )
        left = dict(enumerate(hashes))
        order = []
        for file_hash in self.hashes:
            order.append(next(index for index, model_hash in left.items() if model_hash == file_hash))
            del left[order[-1]]
        return order


def as_weights(
    values: list[float], tensors: dict[str, list[float]] | None
) -> list[float] | dict[str, list[float]]:
    """Coefficients as weights of a merge: one a vector, or a rule for each tensor.

    A tensor that the search left out (`exclude`, or no part of the embedding) stays at the base.
    """
    return values if tensors is None else {**tensors, "default": [0.0] * len(values)}


def write_coefficients(path: Path, coefficients: Coefficients) -> Path:
    """Write `coefficients` as the JSON file `path`, whole, over what was there."""
    pairs = zip(coefficients.names, coefficients.hashes, strict=True)
    data = {
        "format": next(name for name, method in FORMATS.items() if method == coefficients.method),
        "base": {"name": coefficients.base_name, "hash": coefficients.base},
        "vectors": [{"name": name, "hash": hashed} for name, hashed in pairs],
        "coefficients": coefficients.values,
        "tensors": coefficients.tensors,
        "found_by": coefficients.found_by,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return path


def read_coefficients(path: Path) -> Coefficients:
    """The coefficients in the file at `path`. Raises SelfposError when it is missing or damaged."""
    if not path.is_file():
        raise SelfposError(f"there is no coefficients file {path}")
    try:
        data = parse_json(read_text(path))
        if data["format"] not in FORMATS:
            raise SelfposError(
                f"{path} has the format {data['format']!r}, expected one of {', '.join(FORMATS)}"
            )
        tensors = data["tensors"]
        if not isinstance(data["found_by"], Mapping):
            raise TypeError
        read = Coefficients(
            names=[str(vector["name"]) for vector in data["vectors"]],
            hashes=[str(vector["hash"]) for vector in data["vectors"]],
            values=[float(value) for value in data["coefficients"]],
            tensors=tensors and {key: [float(c) for c in row] for key, row in tensors.items()},
            base_name=str(data["base"]["name"]),
            base=str(data["base"]["hash"]),
            found_by=dict(data["found_by"]),
            method=FORMATS[data["format"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SelfposError(
            f"{path} is no coefficients file: "
            "expected JSON with format, base, vectors, coefficients and tensors"
        ) from None
    for row in [read.values, *(read.tensors or {}).values()]:
        if len(row) != len(read.names) or not all(map(math.isfinite, row)):
            raise SelfposError(f"{path} must hold {len(read.names)} finite coefficients in every row")
    return read
