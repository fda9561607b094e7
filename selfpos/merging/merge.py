"""Merging: read the inputs in chunks, merge, write; the output folder appears when it is whole."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from selfpos.console import log, progress
from selfpos.merging.adapter_output import write_adapter
from selfpos.merging.layout import add_prompts, copy_side_files
from selfpos.merging.plan import MEGABYTE, Options, Plan, plan
from selfpos.merging.prepare import make_stream, prepare
from selfpos.merging.probe_statistics import require_statistics
from selfpos.merging.provenance import compact, main_dtype, provenance, without_places
from selfpos.merging.write import JOURNAL, interrupted_with_progress, write_weights
from selfpos.storage.atomic import resumable_folder
from selfpos.storage.manifest import write_manifest

SHOWN_FROM = 256 * MEGABYTE
"""Smaller merges are over before a progress bar has been drawn."""


@dataclass(frozen=True)
class MergeResult:
    """What a merge made. `coefficients` are the c_i of θ0 + Σ c_i V_i where the method has such, per tensor when they differ."""

    out: Path
    manifest: dict[str, Any]
    coefficients: list[float] | dict[str, list[float]] | None
    warnings: list[str]
    seconds: float


Finish = Callable[[Path], object]


def merge(
    base: Path,
    sources: Sequence[Path],
    method: str,
    out: Path,
    *,
    show: bool = True,
    finish: Finish | None = None,
    **options: Unpack[Options],
) -> MergeResult:
    """Merge fine-tuned models or adapters over their base into the new sentence-transformers folder `out` (or adapter folder).

    The options are those of `plan.plan`. `finish` is called with the folder when all else is in it but it is not yet at its place, to add what
    must not be missing there (a card). Raises SelfposError when the inputs do not fit each other or the method (nothing is written),
    OperationError when the disk refuses. A merge that was killed goes on where it was when it is started again.
    """
    return execute(plan(base, sources, method, out, **options), show=show, finish=finish)


def execute(plan: Plan, *, show: bool = True, finish: Finish | None = None) -> MergeResult:
    """Carry out a plan; see `merge`. Raises SelfposError when it lacks data statistics that its method needs."""
    from threadpoolctl import threadpool_limits

    require_statistics(plan.method, plan.statistics, len(plan.vectors))
    start = time.monotonic()
    for warning in plan.warnings:
        log.warning(warning)
    nbytes = plan.bytes_read
    share = nbytes / plan.elements
    shown = (
        progress(f"merging ({plan.method.name})", nbytes, unit="bytes")
        if show and nbytes >= SHOWN_FROM
        else nullcontext()
    )
    limits = threadpool_limits(plan.threads if plan.method.grain == "matrix" else 1)
    with (
        resumable_folder(plan.out, fingerprint(plan), worth_keeping=interrupted_with_progress) as folder,
        shown as bar,
        limits,
    ):
        stream = make_stream(
            plan,
            (lambda elements: bar.advance(share * elements)) if bar is not None else lambda elements: None,
        )
        prepared = prepare(plan, stream)
        manifest = provenance(plan, prepared.coefficients)
        if plan.options.get("output") == "adapter":
            lost = manifest["merge"]["truncation"] = write_adapter(
                plan, prepared.coefficients, folder, _metadata(manifest)
            )
            if lost is not None:
                log.warning(
                    "truncating to rank %d loses %.2g of the merged vector (relative Frobenius norm)",
                    lost["rank"],
                    lost["error"],
                )
        else:
            copy_side_files(plan.frame.path, plan.side_files, folder, main_dtype(plan))
            add_prompts(folder, plan.prompts)
            write_weights(plan, stream, prepared, folder, _metadata(manifest))
        write_manifest(folder, manifest)
        if finish is not None:
            finish(folder)
        (folder / JOURNAL).unlink(missing_ok=True)
    return MergeResult(
        plan.out, manifest, compact(prepared.coefficients), plan.warnings, time.monotonic() - start
    )


def fingerprint(plan: Plan) -> str:
    """A hash of everything that determines the output's bytes and how they are written."""
    facts = without_places(provenance(plan, None)) | {"threads": plan.threads}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _metadata(manifest: dict[str, Any]) -> dict[str, str]:
    return {"selfpos": json.dumps(without_places(manifest), ensure_ascii=False, default=str)}
