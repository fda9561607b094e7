"""Merging: read the inputs in chunks, merge, write; the output folder appears when it is whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.console import log, progress
from selfpos.merging.output.adapter import write_adapter
from selfpos.merging.output.layout import add_prompts, copy_side_files
from selfpos.merging.output.provenance import compact, file_metadata, fingerprint, provenance
from selfpos.merging.output.weights import JOURNAL, interrupted_with_progress, write_weights
from selfpos.merging.plan import Plan, plan
from selfpos.merging.prepare import make_stream, prepare
from selfpos.merging.stream import require_statistics
from selfpos.recipe.merging import MEGABYTE
from selfpos.storage.atomic import resumable_folder
from selfpos.storage.manifest import write_manifest

SHOWN_FROM = 256 * MEGABYTE
"""Smaller merges are over before a progress bar is drawn."""


@dataclass(frozen=True)
class MergeResult:
    """What a merge made. `coefficients` are the c_i of a combination, per tensor when they differ."""

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
    **options: Any,
) -> MergeResult:
    """Merge fine-tuned models or adapters over their base into the new sentence-transformers folder `out`.

    The options are those of `plan`. `finish` is called with the complete folder before it is renamed to
    `out`, to add a card. Raises SelfposError when inputs and method do not fit (nothing is written),
    OperationError when the disk refuses. A merge that was killed continues when it is started again.
    """
    return execute(plan(base, sources, method, out, **options), show=show, finish=finish)


def execute(plan: Plan, *, show: bool = True, finish: Finish | None = None) -> MergeResult:
    """Carry out a plan; see `merge`. Raises SelfposError when it lacks data statistics."""
    from threadpoolctl import threadpool_limits

    require_statistics(plan.method, plan.statistics, len(plan.vectors))
    start = time.monotonic()
    for warning in plan.warnings:
        log.warning(warning)
    nbytes = plan.bytes_read
    per_element = nbytes / plan.elements
    shows = show and nbytes >= SHOWN_FROM
    bar_or_none = progress(f"merging ({plan.method.name})", nbytes, unit="bytes") if shows else nullcontext()
    with (
        resumable_folder(plan.out, fingerprint(plan), worth_keeping=interrupted_with_progress) as folder,
        bar_or_none as bar,
        threadpool_limits(plan.threads if plan.method.chunking == "matrix" else 1),
    ):

        def advance(elements: int) -> None:
            if bar is not None:
                bar.advance(per_element * elements)

        stream = make_stream(plan, advance)
        prepared = prepare(plan, stream)
        manifest = provenance(plan, prepared.coefficients)
        if plan.options.output == "adapter":
            truncation = write_adapter(plan, prepared.coefficients, folder, file_metadata(manifest))
            manifest["merge"]["truncation"] = truncation
        else:
            copy_side_files(plan.frame.path, plan.side_files, folder, plan.main_dtype)
            add_prompts(folder, plan.prompts)
            write_weights(plan, stream, prepared, folder, file_metadata(manifest))
        write_manifest(folder, manifest)
        if finish is not None:
            finish(folder)
        (folder / JOURNAL).unlink(missing_ok=True)
    seconds = time.monotonic() - start
    return MergeResult(plan.out, manifest, compact(prepared.coefficients), plan.warnings, seconds)
