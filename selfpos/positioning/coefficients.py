"""Found coefficients as a file: what `selfpos merge --coefficients` applies to the same vectors again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError

FORMAT = "selfpos coefficients 1"


@dataclass(frozen=True)
class Coefficients:
    """c_i of Σ c_i V_i: one a vector in `values`, or one for each tensor and vector in `tensors`, which then goes before."""

    names: list[str]
    values: list[float]
    tensors: dict[str, list[float]] | None
    base: str | None

    @property
    def weights(self) -> list[float] | dict[str, list[float]]:
        """What method `linear` takes to apply them."""
        return as_weights(self.values, self.tensors)


def as_weights(values: list[float], tensors: dict[str, list[float]] | None) -> list[float] | dict[str, list[float]]:
    """Coefficients as weights of method `linear`: one a vector, or a rule for each tensor.

    A tensor that the search left out (`exclude`, or no part of the embedding) stays at the base.
    """
    return values if tensors is None else {**tensors, "default": [0.0] * len(values)}


def write_coefficients(path: Path, coefficients: Coefficients, found_by: dict[str, Any]) -> Path:
    """Write `coefficients` with `found_by` (settings, seed, losses: for people) to the new JSON file `path`. Raises SelfposError if it exists."""
    import os

    if path.exists():
        raise SelfposError(f"{path} exists already; give another place for the coefficients, or remove it")
    data = {
        "format": FORMAT,
        "base": coefficients.base,
        "vectors": coefficients.names,
        "coefficients": coefficients.values,
        "tensors": coefficients.tensors,
        "found_by": found_by,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
    return path


def read_coefficients(path: Path, names: Sequence[str], base: str | None = None) -> Coefficients:
    """Read the file at `path` for the vectors `names`, in that order: the file's own order may differ. `base` is the base's content hash.

    Raises SelfposError when the file is missing or damaged, or was made for other vectors or another base.
    """
    if not path.is_file():
        raise SelfposError(f"there is no coefficients file {path}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise SelfposError(f"{path} has the format {data['format']!r}, expected {FORMAT!r}")
        known: list[str] = data["vectors"]
        values = [float(value) for value in data["coefficients"]]
        tensors = None if data["tensors"] is None else {key: [float(value) for value in row] for key, row in data["tensors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SelfposError(f"{path} is no coefficients file: expected JSON with format, vectors, coefficients and tensors") from None
    if sorted(known) != sorted(names):
        raise SelfposError(f"{path} holds coefficients of {', '.join(known)}; the vectors given are {', '.join(names)}")
    if base and data.get("base") and data["base"] != base:
        raise SelfposError(f"{path} was made with the base of content hash {data['base'][:12]}…; the base given has {base[:12]}…")
    rows = [values, *(tensors or {}).values()]
    if any(len(row) != len(known) or not all(map(math.isfinite, row)) for row in rows):
        raise SelfposError(f"{path} must hold {len(known)} finite coefficients in every row")
    order = [known.index(name) for name in names]
    return Coefficients(
        list(names),
        [values[i] for i in order],
        tensors and {key: [row[i] for i in order] for key, row in tensors.items()},
        data.get("base"),
    )
