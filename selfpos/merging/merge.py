"""Merging: read the inputs in chunks, merge, write; the output folder appears when it is whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from selfpos.console import log, progress
from selfpos.merging.maths.geometry import inner_products
from selfpos.merging.output.adapter import write_adapter
from selfpos.merging.output.layout import add_prompts, copy_side_files
from selfpos.merging.output.modules import add_modules
from selfpos.merging.output.provenance import compact, file_metadata, fingerprint, provenance
from selfpos.merging.output.weights import JOURNAL, write_weights
from selfpos.merging.plan import Coefficients, Plan, plan
from selfpos.merging.stream import Array, Chunk, Stream, require_statistics
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
    `out`, to add a card. A merge that was killed continues when it is started again.
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
        resumable_folder(
            plan.out, fingerprint(plan), worth_keeping=lambda folder: (folder / JOURNAL).is_file()
        ) as folder,
        bar_or_none as bar,
        threadpool_limits(plan.threads if plan.method.chunking == "matrix" else 1),
    ):

        def advance(elements: int) -> None:
            if bar is not None:
                bar.advance(per_element * elements)

        stream = make_stream(plan, advance)
        merge_chunk, coefficients = prepare(plan, stream)
        manifest = provenance(plan, coefficients)
        if plan.options.output == "adapter":
            truncation = write_adapter(plan, coefficients, folder, file_metadata(manifest))
            manifest["merge"]["truncation"] = truncation
        else:
            copy_side_files(plan.frame.path, plan.side_files, folder, plan.main_dtype)
            if plan.options.pooling is not None:
                add_modules(folder, plan.options.pooling)
            add_prompts(folder, plan.prompts)
            write_weights(plan, stream, merge_chunk, folder, file_metadata(manifest))
        write_manifest(folder, manifest)
        if finish is not None:
            finish(folder)
        (folder / JOURNAL).unlink(missing_ok=True)
    seconds = time.monotonic() - start
    return MergeResult(plan.out, manifest, compact(coefficients), plan.warnings, seconds)


def make_stream(plan: Plan, advance: Callable[[int], None] = lambda elements: None) -> Stream:
    """The plan's inputs as a stream."""
    combines = plan.method.form == "combination"
    return Stream(
        plan.base,
        plan.vectors,
        tuple(key for key in plan.keys if key not in plan.tied),
        plan.settings,
        chunking=plan.method.chunking,
        on_access=combines,
        checked=not combines,  # a sum is not finite when one of its terms is not
        seed=plan.options.seed,
        # of whole matrices one at a time, with all threads for the linear algebra library
        threads=1 if plan.method.chunking == "matrix" else plan.threads,
        device=plan.options.device,
        tied=plan.tied,
        statistics=plan.statistics,
        advance=advance,
    )


def prepare(plan: Plan, stream: Stream) -> tuple[Callable[[Chunk], Array], Coefficients | None]:
    """What maps a chunk to the merged V, and a combination's coefficients; runs the method's first passes."""
    method, settings = plan.method, plan.settings
    params = {key: settings.params(key) for key in stream.keys}
    if method.form == "kernel":
        with _first_passes(plan, stream) as on_cpu:
            statistics = method.statistics_pass(on_cpu) if method.statistics_pass is not None else {}

        def run(chunk: Chunk) -> Array:
            chunk.statistics = statistics.get(chunk.key)
            return method.function(chunk, **params[chunk.key])

        return run, None
    grams = {}
    if method.gram is not None:
        with _first_passes(plan, stream) as on_cpu:
            grams = inner_products(replace(on_cpu, checked=True), with_base=method.with_base)
    if method.gram == "model" and grams:
        grams = dict.fromkeys(grams, np.sum(list(grams.values()), axis=0))
    coefficients = {}
    for key in stream.keys:
        gram = (grams[key],) if method.gram is not None else ()
        values = method.function(settings.weights(key), *gram, **params[key])
        coefficients[key] = [float(value) for value in values]
    return lambda chunk: combine(chunk, coefficients[chunk.key]), coefficients


@contextmanager
def _first_passes(plan: Plan, stream: Stream) -> Iterator[Stream]:
    """The stream for what is read before the merge itself; progress at its end is that of the planned passes.

    It reads a sample besides where thresholds are wanted, and a tensor that is stored twice only once. On the
    CPU the statistics are the same whatever device the merge runs on.
    """
    left = plan.elements // plan.passes * (plan.passes - 1)
    lock = Lock()

    def advance(elements: int) -> None:
        nonlocal left
        with lock:
            counted = min(elements, left)
            left -= counted
        stream.advance(counted)

    yield replace(stream, device="cpu", advance=advance)
    stream.advance(left)


def combine(chunk: Chunk, coefficients: list[float]) -> Array:
    """Σ c_i V_i, plus (c_0 − 1) θ0 when there is one coefficient more than vectors."""
    total = None
    if len(coefficients) > len(chunk.vectors):
        base_coefficient, *coefficients = coefficients
        if base_coefficient != 1.0:
            total = chunk.base * (base_coefficient - 1.0)
    for vector, coefficient in zip(chunk.vectors, coefficients, strict=True):
        vector *= coefficient
        if total is None:
            total = vector
        else:
            total += vector
    return total
