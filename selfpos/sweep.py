"""Several merges of the same models in one pass over their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.merging import Plan
from selfpos.merging.merge import execute_all
from selfpos.merging.output.provenance import describe, is_result
from selfpos.merging.plan import plan_sweep
from selfpos.operations import Sources, add_card, located
from selfpos.positioning.coefficients import Coefficients, read_coefficients
from selfpos.recipe import LEARNED, load_settings
from selfpos.recipe.merging import Sweep, SweptMerge
from selfpos.storage.atomic import refuse_existing


def read_sweep(file: str | Path) -> Sweep:
    """The merges in a YAML or JSON file `{"merges": {NAME: {method, weights, params, seed}}}`, by name;
    `{coefficients: FILE}`, relative to the file, names coefficients that a search wrote.

    Raises SelfposError when it cannot be read or holds something else.
    """
    file = Path(file)
    sweep = load_settings(file, Sweep, "sweep")
    placed = {
        name: merge.model_copy(update={"coefficients": file.parent / merge.coefficients})
        if merge.coefficients is not None
        else merge
        for name, merge in sweep.merges.items()
    }
    return Sweep(merges=placed)


def merge_sweep(
    base: str | Path, vectors: Sources, sweep: Sweep, out: str | Path, **options: Any
) -> list[Path]:
    """Merge models fine-tuned from one base in several ways, reading their weights once.

    A sweep that was stopped continues when it is started again: merges that are complete stay, and the others
    go on from where they were.

    Args:
        base: the base model: a folder or a name on the Hub.
        vectors: the fine-tuned models: folders, Hub names, or PEFT adapters.
        sweep: the merges, as `read_sweep` reads them.
        out: the folder of the merged models, one folder each by the names of the sweep.
        options: the fields of `selfpos.recipe.MergeOptions` that all merges share: dtype, seed and others.

    Returns:
        The merged models, in the order of the sweep.

    Raises:
        SelfposError: as `merge`, with the name of the merge; or a folder exists that is not its result.
    """
    out = Path(out)
    plans = _plans(base, vectors, sweep, out, options)
    left = [plan for plan in plans if not plan.out.exists()]
    if kept := len(plans) - len(left):
        log.info(f"{kept} of {len(plans)} merges are complete in {out}, and stay")
    if left:
        execute_all(left, finish=add_card)
    return [plan.out for plan in plans]


def describe_sweep(
    base: str | Path, vectors: Sources, sweep: Sweep, out: Path, **options: Any
) -> dict[str, list[tuple[str, str]]]:
    """What `merge_sweep` would do, by name, as rows of label and text; writes nothing."""
    return {plan.out.name: describe(plan) for plan in _plans(base, vectors, sweep, out, options)}


def _plans(
    base: str | Path, vectors: Sources, sweep: Sweep, out: Path, options: Mapping[str, Any]
) -> list[Plan]:
    folder, sources = located(base, vectors)
    searched = {
        name: read_coefficients(merge.coefficients)
        for name, merge in sweep.merges.items()
        if merge.coefficients is not None
    }
    settings_of = {name: _method_and_settings(name, merge) for name, merge in sweep.merges.items()}
    settings_of |= {name: coefficients.merge_options for name, coefficients in searched.items()}
    plans = plan_sweep(folder, sources, {out / name: settings_of[name] for name in sweep.merges}, **options)
    for plan in plans:
        name = plan.out.name
        if plan.method.probe:
            raise SelfposError(
                f"{name}: method {plan.method.name} gathers statistics of data, which a sweep does not; "
                "merge by it alone"
            )
        if name in searched:
            _check_order(searched[name], plan, sweep.merges[name])
        if not (plan.out.is_dir() and is_result(plan.out, plan)):
            refuse_existing(plan.out)
    return plans


def _method_and_settings(name: str, merge: SweptMerge) -> dict[str, Any]:
    """What the file says of a merge, as keywords. Raises SelfposError for a method that searches."""
    if merge.method in LEARNED:
        raise SelfposError(
            f"{name}: method {merge.method} searches for its coefficients; merge by it alone, and give the "
            "sweep the file of coefficients that it writes"
        )
    return merge.model_dump(exclude_unset=True, exclude_none=True)


def _check_order(searched: Coefficients, plan: Plan, merge: SweptMerge) -> None:
    """Raise SelfposError unless the plan has the vectors of the coefficients in their order."""
    assert merge.coefficients is not None
    base_hash, *hashes = plan.hashes
    order = searched.order(hashes, base_hash, merge.coefficients)
    if order != sorted(order):
        raise SelfposError(
            f"{merge.coefficients} holds coefficients of {', '.join(searched.names)}: "
            "give the vectors in this order"
        )
