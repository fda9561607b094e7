"""Merging: read the inputs in chunks, merge, write; the output folder appears when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from operator import imul
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
from selfpos.merging.output.weights import JOURNAL, Output, write_weights
from selfpos.merging.plan import Coefficients, Plan, plan
from selfpos.merging.stream import Array, Chunk, ReadOnAccess, Stream, require_statistics
from selfpos.recipe.merging import MEGABYTE
from selfpos.storage.atomic import resumable_folder
from selfpos.storage.manifest import write_manifest

SHOWN_FROM = 256 * MEGABYTE
"""Smaller merges are over before a progress bar is drawn."""
MOST_FILES = 100
"""Output files open at a time: some systems allow a process 256 in all."""


@dataclass(frozen=True)
class MergeResult:
    """What a merge made. `coefficients` are the c_i of a combination, per tensor when they differ."""

    out: Path
    manifest: dict[str, Any]
    coefficients: list[float] | dict[str, list[float]] | None
    warnings: list[str]


Finish = Callable[[Path, Path], object]
"""Called with the output's path and the complete folder before that is renamed to it, to add a card."""


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

    The options are those of `plan`. A merge that was killed continues when it is started again.
    """
    return execute(plan(base, sources, method, out, **options), show=show, finish=finish)


def execute(plan: Plan, *, show: bool = True, finish: Finish | None = None) -> MergeResult:
    """Carry out a plan; see `merge`. Raises SelfposError when it lacks data statistics."""
    return execute_all([plan], show=show, finish=finish)[0]


def execute_all(
    plans: Sequence[Plan], *, show: bool = True, finish: Finish | None = None
) -> list[MergeResult]:
    """Carry out plans of the same models, as `plan_sweep` makes them; the models are read once for all
    methods that read them in chunks of the same form on as many threads.

    Raises SelfposError when a plan lacks data statistics.
    """
    for planned in plans:
        require_statistics(planned.method, planned.statistics, len(planned.vectors))
    for warning in dict.fromkeys(warning for planned in plans for warning in planned.warnings):
        log.warning(warning)
    groups = _groups(plans)
    passes = sum(planned.passes for planned in plans) - len(plans) + len(groups)
    nbytes = passes * (plans[0].bytes_read // plans[0].passes)
    per_element = plans[0].bytes_read / plans[0].elements
    shows = show and nbytes >= SHOWN_FROM
    title = plans[0].method.name if len(plans) == 1 else f"{len(plans)} merges"
    results: dict[int, MergeResult] = {}
    with progress(f"merging ({title})", nbytes, unit="bytes") if shows else nullcontext() as bar:

        def advance(elements: int) -> None:
            if bar is not None:
                bar.advance(per_element * elements)

        for group in groups:
            together = _execute_together([plans[index] for index in group], advance, finish)
            results.update(zip(group, together, strict=True))
    return [results[index] for index in range(len(plans))]


def _groups(plans: Sequence[Plan]) -> list[list[int]]:
    """The indices of plans that are carried out together: they read the same chunks on as many threads, and
    have at most MOST_FILES output files open.
    """
    groups: dict[object, list[int]] = {}
    for index, planned in enumerate(plans):
        alone = index if planned.statistics or planned.options.output == "adapter" else None
        groups.setdefault((planned.method.chunking, planned.threads, alone), []).append(index)
    most = max(1, MOST_FILES // (len(plans[0].files) + 1))  # of each its weights and a lock
    return [group[at : at + most] for group in groups.values() for at in range(0, len(group), most)]


def _execute_together(
    plans: Sequence[Plan], advance: Callable[[int], None], finish: Finish | None
) -> list[MergeResult]:
    """Carry out plans whose methods read chunks of the same form."""
    from threadpoolctl import threadpool_limits

    first = plans[0]
    outputs, results = [], []
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(first.threads if first.method.chunking == "matrix" else 1))
        for plan in plans:
            folder = stack.enter_context(
                resumable_folder(
                    plan.out, fingerprint(plan), worth_keeping=lambda folder: (folder / JOURNAL).is_file()
                )
            )
            merge_chunk, coefficients = prepare(plan, make_stream(plan, advance))
            manifest = provenance(plan, coefficients)
            outputs.append(Output(plan, folder, merge_chunk, file_metadata(manifest)))
            results.append(MergeResult(plan.out, manifest, compact(coefficients), plan.warnings))
            if plan.options.output == "adapter":
                truncation = write_adapter(plan, coefficients, folder, file_metadata(manifest))
                manifest["merge"]["truncation"] = truncation
                continue
            copy_side_files(plan.frame.path, plan.side_files, folder, plan.main_dtype)
            if plan.options.pooling is not None:
                add_modules(folder, plan.options.pooling)
            add_prompts(folder, plan.prompts)
        if first.options.output != "adapter":
            write_weights(outputs, make_stream(first, advance, shared=len(plans) > 1))
        for output, result in zip(outputs, results, strict=True):
            write_manifest(output.folder, result.manifest)
            if finish is not None:
                finish(output.plan.out, output.folder)
            (output.folder / JOURNAL).unlink(missing_ok=True)
    return results


def make_stream(
    plan: Plan, advance: Callable[[int], None] = lambda elements: None, *, shared: bool = False
) -> Stream:
    """The plan's inputs as a stream; `shared` by several plans, each chunk is read whole and checked."""
    combines = plan.method.form == "combination" and not shared
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

        weights = {key: settings.weights(key) for key in stream.keys}

        def run(chunk: Chunk) -> Array:
            key, seed = chunk.key, plan.options.seed
            chunk_of_merge = replace(chunk, weights=weights[key], seed=seed, statistics=statistics.get(key))
            return method.function(chunk_of_merge, **params[key])

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
    total: Array = None
    if len(coefficients) > len(chunk.vectors):
        base_coefficient, *coefficients = coefficients
        if base_coefficient != 1.0:
            total = chunk.base * (base_coefficient - 1.0)
    read_here = isinstance(chunk.vectors, ReadOnAccess)  # so that no one else needs the arrays
    for vector, coefficient in zip(chunk.vectors, coefficients, strict=True):
        term = imul(vector, coefficient) if read_here else vector * coefficient
        if total is None:
            total = term
        else:
            total += term
    return total
