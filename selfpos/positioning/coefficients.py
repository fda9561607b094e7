"""Found coefficients as a file: what `selfpos merge --coefficients` applies to the same vectors again, to the same bytes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.atomic import write_text

FORMAT = "selfpos coefficients 1"


@dataclass(frozen=True)
class Coefficients:
    """c_i of Σ c_i V_i: one a vector in `values`, or one for each tensor and vector in `tensors`, which then goes before.

    `names` are what the vectors are called, `hashes` the content hashes of their models, by which they are known again; `base_name` and
    `base` the same of the base. `found_by` says how they were found: what the merge that the search made carries in its manifest.
    """

    names: list[str]
    hashes: list[str]
    values: list[float]
    tensors: dict[str, list[float]] | None
    base_name: str
    base: str
    found_by: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> list[float] | dict[str, list[float]]:
        """What method `linear` takes to apply them."""
        return as_weights(self.values, self.tensors)

    def order(self, hashes: Sequence[str], base: str, file: Path) -> list[int]:
        """Where each of the file's vectors stands among models of content hashes `hashes`, whose order may be another.

        Raises SelfposError, calling the coefficients those of `file`, when they are of other vectors or of another base than `base`.
        """
        if base != self.base:
            raise SelfposError(
                f"{file} was made with the base {self.base_name} (content hash {self.base[:12]}…); the base given has {base[:12]}…"
            )
        if Counter(hashes) != Counter(self.hashes):
            missing = [
                name for name, known in zip(self.names, self.hashes, strict=True) if known not in hashes
            ]
            wanting = (
                f"{', '.join(missing)} of the content hash that it names"
                if missing
                else f"these {len(self.names)} vectors alone"
            )
            raise SelfposError(
                f"{file} holds coefficients of {', '.join(self.names)}, and the vectors given are not those: give {wanting}"
            )
        places: dict[str, list[int]] = {}
        for place, known in enumerate(hashes):
            places.setdefault(known, []).append(place)
        return [places[known].pop(0) for known in self.hashes]


def as_weights(
    values: list[float], tensors: dict[str, list[float]] | None
) -> list[float] | dict[str, list[float]]:
    """Coefficients as weights of method `linear`: one a vector, or a rule for each tensor.

    A tensor that the search left out (`exclude`, or no part of the embedding) stays at the base.
    """
    return values if tensors is None else {**tensors, "default": [0.0] * len(values)}


def write_coefficients(path: Path, coefficients: Coefficients) -> Path:
    """Write `coefficients` as the JSON file `path`, whole, over what was there."""
    vectors = [
        {"name": name, "hash": known}
        for name, known in zip(coefficients.names, coefficients.hashes, strict=True)
    ]
    data = {
        "format": FORMAT,
        "base": {"name": coefficients.base_name, "hash": coefficients.base},
        "vectors": vectors,
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
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise SelfposError(f"{path} has the format {data['format']!r}, expected {FORMAT!r}")
        found = Coefficients(
            names=[str(vector["name"]) for vector in data["vectors"]],
            hashes=[str(vector["hash"]) for vector in data["vectors"]],
            values=_row(data["coefficients"]),
            tensors=None
            if data["tensors"] is None
            else {key: _row(row) for key, row in data["tensors"].items()},
            base_name=str(data["base"]["name"]),
            base=str(data["base"]["hash"]),
            found_by=dict(_mapping(data["found_by"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SelfposError(
            f"{path} is no coefficients file: expected JSON with format, base, vectors, coefficients and tensors"
        ) from None
    rows = [found.values, *(found.tensors or {}).values()]
    if any(len(row) != len(found.names) or not all(map(math.isfinite, row)) for row in rows):
        raise SelfposError(f"{path} must hold {len(found.names)} finite coefficients in every row")
    return found


def _row(values: Any) -> list[float]:
    return [float(value) for value in values]


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return value
