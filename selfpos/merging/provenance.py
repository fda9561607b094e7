"""What a merge writes about itself: enough to repeat it, and to check that the inputs are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selfpos.merging.plan import Plan
from selfpos.merging.prepare import Coefficients
from selfpos.storage.locate import hub_snapshot
from selfpos.version import __version__

PLACE = ("path", "repo", "revision")
"""Fields that say where an input was found. They stand in the manifest, not in the weight files, whose bytes must not depend on it."""
TIME = "seconds"
"""Nor must they depend on how long the search for the coefficients took."""


def provenance(plan: Plan, coefficients: Coefficients | None) -> dict[str, Any]:
    """The manifest of the output. It holds no time, so that equal merges give equal bytes."""
    base_hash, *source_hashes = plan.hashes
    given = plan.options
    return {
        **(given.get("provenance") or {}),
        "kind": "merge",
        "base": {"name": plan.base_name, **_place(plan.base.path), "hash": base_hash},
        "merge": {
            "method": plan.method.name,
            "reference": plan.method.reference,
            "weights": given.get("weights"),
            "params": dict(given.get("params") or {}),
            "defaults": {
                parameter.name: parameter.default
                for parameter in plan.method.parameters
                if parameter.name not in (given.get("params") or {})
            },
            "sources": [
                {"name": vector.name, **_place(vector.source), "hash": digest}
                for vector, digest in zip(plan.vectors, source_hashes, strict=True)
            ],
            "coefficients": compact(coefficients),
            "seed": plan.seed,
            "dtype": main_dtype(plan),
            "dtype_given": given.get("dtype"),
            "shard_size": given.get("shard_size"),
            "device": given.get("device"),
            "output": given.get("output"),
            "rank": given.get("rank"),
            "take_from": given.get("take_from"),
        },
        "versions": {"selfpos": __version__, "numpy": np.__version__},
    }


def without_places(manifest: dict[str, Any]) -> dict[str, Any]:
    """The copy of a manifest for the weight files' metadata: without places, and without the time that what was given to the merge took."""

    def strip(entry: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in entry.items() if key not in PLACE}

    merge = manifest["merge"]
    manifest = {
        name: {key: value for key, value in part.items() if key != TIME} if isinstance(part, dict) else part
        for name, part in manifest.items()
    }
    return manifest | {
        "base": strip(manifest["base"]),
        "merge": merge | {"sources": [strip(source) for source in merge["sources"]]},
    }


def compact(coefficients: Coefficients | None) -> list[float] | Coefficients | None:
    """One list where all tensors have the same coefficients, else a list per tensor."""
    if not coefficients:
        return None
    first = next(iter(coefficients.values()))
    return first if all(values == first for values in coefficients.values()) else coefficients


def main_dtype(plan: Plan) -> str:
    """The number format of most of the output's weights, safetensors name."""
    sizes: dict[str, int] = {}
    for key in plan.keys:
        sizes[plan.dtypes[key]] = sizes.get(plan.dtypes[key], 0) + plan.base.tensors[key].numel
    return max(sizes, key=lambda name: sizes[name])


def _place(folder: Path) -> dict[str, str]:
    snapshot = hub_snapshot(folder)
    return {"path": str(folder)} | ({"repo": snapshot[0], "revision": snapshot[1]} if snapshot else {})
