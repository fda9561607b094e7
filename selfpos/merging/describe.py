"""Plans in words, for `--dry-run`."""

from __future__ import annotations

from typing import Any

from selfpos.merging.plan import Plan
from selfpos.recipe.merging import MEGABYTE
from selfpos.storage.numbers import TORCH


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
    taken = len(plan.dtypes) - len(plan.keys)
    tied = f" ({len(plan.tied)} stored twice)" if plan.tied else ""
    passes = f"{plan.passes} pass{'es' if plan.passes > 1 else ''}"
    files = f"{len(plan.files)} weight file{'s' if len(plan.files) > 1 else ''}"
    threads = f"{plan.threads} thread{'s' if plan.threads > 1 else ''}"
    budget = plan.options.budget
    rows += [
        ("tensors", f"{len(plan.keys)} merged{tied}" + (f", {taken} taken whole" if taken else "")),
        ("read", f"{_megabytes(plan.bytes_read)} in {passes}"),
        ("write", f"{_megabytes(plan.bytes_written)} as {TORCH[plan.main_dtype]} in {files}"),
        ("memory", f"about {_megabytes(plan.memory)} beyond the runtime; the budget is {_megabytes(budget)}"),
        ("run on", f"{plan.options.device}, {threads}"),
        ("out", str(plan.out)),
    ]
    return rows + [("warning", warning) for warning in plan.warnings]


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:,.0f} MB"


def _over_tensors(values: list[Any]) -> str:
    """One value where all tensors have the same, else the range in the order of the tensors."""
    different = len({str(value) for value in values})
    return (
        str(values[0]) if different == 1 else f"{values[0]} … {values[-1]}, {different} different by tensor"
    )
