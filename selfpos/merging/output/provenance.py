"""What a merge says about itself: its plan in words, and the manifest, enough to repeat it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.merging.plan import Coefficients, Plan
from selfpos.recipe.merging import MEGABYTE
from selfpos.storage.locate import hub_snapshot
from selfpos.storage.manifest import made_from, read_manifest
from selfpos.storage.numbers import TORCH
from selfpos.storage.pickles import origin_of
from selfpos.vectors.task_vector import TaskVector
from selfpos.version import __version__

PATHS = ("path", "repo", "revision")
"""Where an input is: in the manifest, but not in the weight files, whose bytes must not depend on it."""
FILES = 10**6
"""Bytes of the MB in which files are told, as a progress bar and the system tell them."""
TIME = "seconds"
FOUND = ("coefficients", "truncation")
"""What a merge finds out, which its plan does not know."""


def provenance(plan: Plan, coefficients: Coefficients | None) -> dict[str, Any]:
    """The manifest of the output. It holds no time, so that equal merges give equal bytes."""
    base_hash, *source_hashes = plan.hashes
    chosen = plan.options.params or {}
    recorded = plan.options.recorded()
    parameters = [parameter for parameter in plan.method.parameters if parameter.name not in chosen]
    sources = [
        {"name": vector.name, **_path(vector.source), "hash": digest, **_base_of(vector)}
        for vector, digest in zip(plan.vectors, source_hashes, strict=True)
    ]
    return {
        **(plan.options.provenance or {}),
        "kind": "merge",
        "base": {"name": plan.base_name, **_path(plan.base.path), "hash": base_hash},
        "merge": {
            "method": plan.method.name,
            "reference": plan.method.reference,
            "weights": recorded.pop("weights"),
            "params": recorded.pop("params"),
            "defaults": {parameter.name: parameter.default for parameter in parameters},
            "sources": sources,
            "coefficients": compact(coefficients),
            "seed": recorded.pop("seed"),
            "dtype": plan.main_dtype,
            **recorded,
        },
        "versions": {"selfpos": __version__, "numpy": np.__version__},
    }


def _base_of(vector: TaskVector) -> dict[str, str]:
    """The hash of the base of a source that stands for the base of the merge, which was given none."""
    recorded = made_from(vector.folder.manifest).get("hash")
    return {"base": recorded} if recorded and vector.folder.path == vector.base.path else {}


def file_metadata(manifest: dict[str, Any]) -> dict[str, str]:
    """The metadata of the weight files: the manifest without paths and times."""
    return {"selfpos": json.dumps(_without_paths(manifest), ensure_ascii=False, default=str)}


def fingerprint(plan: Plan) -> str:
    """A hash of everything that determines the output's bytes and how they are written."""
    facts = _without_paths(provenance(plan, None)) | {"threads": plan.threads}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def is_result(folder: Path, plan: Plan) -> bool:
    """Whether `folder` is what this plan makes, by its manifest, and has its weights still."""

    def decisive(manifest: dict[str, Any]) -> str:
        facts = _without_paths(manifest)
        facts["merge"] = {key: value for key, value in facts["merge"].items() if key not in FOUND}
        return json.dumps(facts, sort_keys=True, default=str)

    wanted = decisive(json.loads(json.dumps(provenance(plan, None), default=str)))
    try:
        made = decisive(read_manifest(folder)) == wanted
    except (KeyError, TypeError, AttributeError):  # a manifest of something else
        return False
    files = [] if plan.options.output == "adapter" else plan.files
    return made and all((folder / file.path).is_file() for file in files)


def _without_paths(manifest: dict[str, Any]) -> dict[str, Any]:
    def without(entry: Any, *names: str) -> Any:
        return {key: value for key, value in entry.items() if key not in names}

    merge = manifest["merge"]
    timeless = {
        name: without(part, TIME) if isinstance(part, dict) else part for name, part in manifest.items()
    }
    return timeless | {
        "base": without(manifest["base"], *PATHS),
        "merge": merge | {"sources": [without(source, *PATHS) for source in merge["sources"]]},
    }


def compact(coefficients: Coefficients | None) -> list[float] | Coefficients | None:
    """One list where all tensors have the same coefficients, else a list per tensor."""
    if not coefficients:
        return None
    first = next(iter(coefficients.values()))
    return first if all(values == first for values in coefficients.values()) else coefficients


def _path(folder: Path) -> dict[str, str]:
    return {"path": str(origin_of(folder)), **hub_snapshot(folder)}


def describe(plan: Plan) -> list[tuple[str, str]]:
    """(label, text) rows that say what `merge` would do with this plan."""
    base_hash, *hashes = plan.hashes
    rows = [
        ("method", f"{plan.method.name}: {plan.method.summary}"),
        ("base", f"{plan.base_name}  {plan.base.path}  content {base_hash[:12]}"),
    ]
    for vector, digest in zip(plan.vectors, hashes, strict=True):
        kind = "adapter" if vector.folder.is_adapter else "model"
        rows.append(("vector", f"{vector.name} ({kind})  {vector.source}  content {digest[:12]}"))
    if plan.method.weighting != "none":
        rows.append(("weights", _over_tensors([plan.settings.weights(key) for key in plan.keys])))
    params = [plan.settings.params(key) for key in plan.keys]
    for parameter in plan.method.parameters:
        rows.append((parameter.name, _over_tensors([values[parameter.name] for values in params])))
    for name in plan.method.probe:
        rows.append(("data", f"{name} of each vector on its task's probe records, gathered before"))
    taken_whole = len(plan.dtypes) - len(plan.keys)
    tied = f" ({len(plan.tied)} stored twice)" if plan.tied else ""
    passes = f"{plan.passes} pass{'es' if plan.passes > 1 else ''}"
    files = f"{len(plan.files)} weight file{'s' if len(plan.files) > 1 else ''}"
    threads = f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
    budget = plan.options.budget
    rows += [
        (
            "tensors",
            f"{len(plan.keys)} merged{tied}" + (f", {taken_whole} taken whole" if taken_whole else ""),
        ),
        ("read", f"{_megabytes(plan.bytes_read, FILES)} in {passes}"),
        ("write", f"{_megabytes(plan.bytes_written, FILES)} as {TORCH[plan.main_dtype]} in {files}"),
        ("memory", f"about {_megabytes(plan.memory)} beyond the runtime; the budget is {_megabytes(budget)}"),
        ("run on", f"{plan.options.device}, {threads}"),
        ("out", str(plan.out)),
    ]
    return rows + [("warning", warning) for warning in plan.warnings]


def _megabytes(count: int, unit: int = MEGABYTE) -> str:
    return f"{count / unit:,.0f} MB"


def _over_tensors(values: list[Any]) -> str:
    """One value where all tensors have the same, else the range in the order of the tensors."""
    different = len({str(value) for value in values})
    return (
        str(values[0]) if different == 1 else f"{values[0]} … {values[-1]}, {different} different by tensor"
    )
