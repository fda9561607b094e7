"""Plans and methods in words, for `--dry-run` and `selfpos methods`."""

from __future__ import annotations

from selfpos.merging.plan import MEGABYTE, Plan
from selfpos.merging.provenance import main_dtype
from selfpos.merging.registry import METHODS, Method
from selfpos.storage.numbers import TORCH


def describe(plan: Plan) -> list[tuple[str, str]]:
    """(label, text) rows that say what `merging.merge` would do with this plan."""
    settings = plan.settings
    base_hash, *hashes = plan.hashes
    rows = [
        ("method", f"{plan.method.name}: {plan.method.summary}"),
        ("base", f"{plan.base_name}  {plan.base.path}  content {base_hash[:12]}"),
    ]
    for vector, digest in zip(plan.vectors, hashes, strict=True):
        kind = "adapter" if vector.low_rank else "model"
        rows.append(("vector", f"{vector.name} ({kind})  {vector.source}  content {digest[:12]}"))
    if plan.method.weighting != "none":
        rows.append(("weights", _over_tensors([settings.weights(key) for key in plan.keys])))
    for parameter in plan.method.parameters:
        rows.append(
            (parameter.name, _over_tensors([settings.params(key)[parameter.name] for key in plan.keys]))
        )
    rows += [
        ("data", f"{name} of each vector on its own task's probe records, gathered before")
        for name in plan.method.probe
    ]
    taken = len(plan.dtypes) - len(plan.keys)
    rows += [
        (
            "tensors",
            f"{len(plan.keys)} merged"
            + (f" ({len(plan.tied)} stored twice)" if plan.tied else "")
            + (f", {taken} taken whole" if taken else ""),
        ),
        (
            "read",
            f"{plan.bytes_read / MEGABYTE:,.0f} MB in {plan.passes} pass{'es' if plan.passes > 1 else ''}",
        ),
        (
            "write",
            f"{plan.bytes_written / MEGABYTE:,.0f} MB as {TORCH[main_dtype(plan)]} in {len(plan.files)} weight file{'s'[: len(plan.files) > 1]}",
        ),
        (
            "memory",
            f"about {plan.memory / MEGABYTE:,.0f} MB beyond the runtime; the budget is {plan.budget / MEGABYTE:,.0f} MB",
        ),
        ("run on", f"{plan.options.get('device', 'cpu')}, {plan.threads} thread{'s'[: plan.threads > 1]}"),
        ("out", str(plan.out)),
    ]
    return rows + [("warning", warning) for warning in plan.warnings]


def _over_tensors(values: list[object]) -> str:
    """One value where all tensors have the same, else the range in the order of the tensors."""
    first = values[0]
    return (
        str(first)
        if all(value == first for value in values)
        else f"{first} … {values[-1]}, {len({str(value) for value in values})} different by tensor"
    )


def method_rows() -> list[tuple[str, str, str, str]]:
    """(name, summary, needs, parameters) of every method, by name."""
    return [_method_row(METHODS[name]) for name in sorted(METHODS)]


def _method_row(method: Method) -> tuple[str, str, str, str]:
    limits = {
        (1, None): "",
        (1, 1): "one vector",
        (2, 2): "two vectors",
        (2, None): "two vectors or more",
        (1, 2): "one or two vectors",
    }
    needs = [limits[(method.fewest, method.most)], method.needs]
    return (
        method.name,
        method.summary,
        ", ".join(need for need in needs if need),
        ", ".join(map(str, method.parameters)),
    )
