"""Merging: read the inputs in chunks, merge, write; the output folder appears when it is whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfpos import __version__
from selfpos.console import log, progress
from selfpos.merging.inner_products import inner_products
from selfpos.merging.layout import copy_side_files, write_indices
from selfpos.merging.plan import MEGABYTE, Plan, hub_place, plan
from selfpos.merging.stream import Array, Chunk, Stream
from selfpos.storage.atomic import fresh_folder
from selfpos.storage.manifest import write_manifest
from selfpos.storage.numbers import STORED, from_float32
from selfpos.storage.tensor_file import TensorFileWriter

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


def merge(base: Path, sources: Sequence[Path], method: str, out: Path, *, show: bool = True, **options: Any) -> MergeResult:
    """Merge fine-tuned models or adapters over their base into the new sentence-transformers folder `out`.

    Options are those of `plan.plan`: weights, params, dtype, seed, threads, device, budget, shard_size, allow_code, names, provenance.
    Raises SelfposError when the inputs do not fit each other or the method (nothing is written), OperationError when the disk refuses.
    """
    return execute(plan(base, sources, method, out, **options), show=show)


def execute(plan: Plan, *, show: bool = True) -> MergeResult:
    """Carry out a plan."""
    from threadpoolctl import threadpool_limits

    start = time.monotonic()
    for warning in plan.warnings:
        log.warning(warning)
    shown = (
        progress(f"merging ({plan.method.name})", plan.elements * 4, unit="bytes")
        if show and plan.elements * 4 >= SHOWN_FROM
        else nullcontext()
    )
    # Chunks are worked on by one thread each; for whole matrices the linear algebra library has all of them instead.
    matrix = plan.method.grain == "matrix"
    with fresh_folder(plan.out) as folder, shown as bar, threadpool_limits(plan.threads if matrix else 1):
        stream = Stream(
            plan.base,
            plan.vectors,
            plan.keys,
            plan.settings,
            grain=plan.method.grain,
            seed=plan.seed,
            threads=1 if matrix else plan.threads,
            device=plan.device,
            advance=(lambda elements: bar.advance(4 * elements)) if bar is not None else lambda elements: None,
        )
        coefficients, kernel = prepare(plan, stream)
        manifest = provenance(plan, coefficients)
        copy_side_files(plan.base.path, plan.side_files, folder, _main_dtype(plan))
        write_weights(plan, stream, kernel, folder, manifest)
        write_manifest(folder, manifest)
    return MergeResult(plan.out, manifest, _compact(coefficients), plan.warnings, time.monotonic() - start)


Kernel = Callable[[Chunk], Array]


def prepare(plan: Plan, stream: Stream) -> tuple[dict[str, list[float]] | None, Kernel]:
    """The statistics pass where the method has one: coefficients per tensor (of a combination), and the function that merges a chunk."""
    method, settings = plan.method, plan.settings
    if method.form == "combination":
        coefficients = combination_coefficients(plan, stream)
        return coefficients, lambda chunk: combine(chunk, coefficients[chunk.key])
    statistics = method.survey(replace(stream, device="cpu")) if method.survey is not None else {}
    params = {key: settings.params(key) for key in stream.keys}

    def run(chunk: Chunk) -> Array:
        chunk.statistics = statistics.get(chunk.key)
        return method.function(chunk, **params[chunk.key])

    return None, run


def combination_coefficients(plan: Plan, stream: Stream) -> dict[str, list[float]]:
    """The coefficients of every tensor, θ0's own first where the method sets it."""
    method, settings = plan.method, plan.settings
    grams = inner_products(stream, with_base=method.with_base) if method.gram is not None else {}
    if method.gram == "model" and grams:
        grams = dict.fromkeys(grams, np.sum(list(grams.values()), axis=0))
    found = {}
    for key in stream.keys:
        inner = (grams[key],) if method.gram is not None else ()
        found[key] = [float(value) for value in method.function(settings.weights(key), *inner, **settings.params(key))]
    return found


def combine(chunk: Chunk, coefficients: list[float]) -> Array:
    """Σ c_i V_i, plus (c_0 − 1) θ0 when there is one coefficient more than vectors."""
    own = coefficients[: len(coefficients) - len(chunk.vectors)]
    total = None if not own else chunk.base * (own[0] - 1.0)
    for vector, coefficient in zip(chunk.vectors, coefficients[len(own) :], strict=True):
        vector *= coefficient
        if total is None:
            total = vector
        else:
            total += vector
    return total


def write_weights(plan: Plan, stream: Stream, kernel: Kernel, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Merge and write every tensor; buffers are the base's."""
    metadata = {"selfpos": json.dumps(_without_places(manifest), ensure_ascii=False, default=str)}
    for file in plan.files:
        (folder / file.path.parent).mkdir(parents=True, exist_ok=True)
        shapes = {name: (plan.dtypes[key], plan.base.tensors[key].shape) for name, key in file.tensors.items()}
        writer = TensorFileWriter(folder / file.path, shapes, metadata)
        names = {key: name for name, key in file.tensors.items()}

        def work(key: str, ranges: list[tuple[int, int]], writer: TensorFileWriter = writer, names: dict[str, str] = names) -> None:
            dtype = plan.dtypes[key]
            for chunk in stream.chunks(key, ranges):
                merged = kernel(chunk)
                merged += chunk.base
                values = merged if isinstance(merged, np.ndarray) else merged.cpu().numpy()
                writer.write(names[key], from_float32(values.reshape(-1), dtype), chunk.start * STORED[dtype].itemsize)

        try:
            for _ in stream.map(work, stream.tasks(key for key in file.tensors.values() if plan.base.tensors[key].mergeable)):
                pass
            for name, key in file.tensors.items():
                if not plan.base.tensors[key].mergeable:
                    writer.write(name, plan.base.raw(key))
        finally:
            writer.close()
    write_indices(folder, plan.files, {key: plan.nbytes(key) for key in plan.base.tensors})


def provenance(plan: Plan, coefficients: dict[str, list[float]] | None) -> dict[str, Any]:
    """What made the output, for its manifest and the metadata of its weight files. Holds no time, so that equal merges give equal bytes."""
    base, *sources = [
        {"name": name, **_place(folder), "hash": digest}
        for name, folder, digest in zip(plan.names, [plan.base.path, *(vector.source for vector in plan.vectors)], plan.hashes, strict=True)
    ]
    return {
        **plan.provenance,
        "kind": "merge",
        "base": base,
        "merge": {
            "method": plan.method.name,
            "reference": plan.method.reference,
            "weights": plan.settings.weights_given,
            "params": {
                parameter.name: plan.settings.params_given.get(parameter.name, parameter.default) for parameter in plan.method.parameters
            },
            "sources": sources,
            "coefficients": _compact(coefficients),
            "seed": plan.seed,
            "dtype": _main_dtype(plan),
            "asked": plan.asked,
        },
        "versions": {"selfpos": __version__, "numpy": np.__version__},
    }


def _place(folder: Path) -> dict[str, str]:
    """Where a model was: its place on the Hub, or a folder."""
    on_hub = hub_place(folder)
    return {"repo": on_hub[0], "revision": on_hub[1]} if on_hub else {"path": str(folder)}


def _without_places(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest for the weight files: base and sources by name and hash, not by where they were, which must not change the bytes."""

    def bare(record: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in record.items() if key not in ("path", "repo", "revision")}

    merge = manifest["merge"]
    return {**manifest, "base": bare(manifest["base"]), "merge": {**merge, "sources": [bare(record) for record in merge["sources"]]}}


def _compact(coefficients: dict[str, list[float]] | None) -> list[float] | dict[str, list[float]] | None:
    if not coefficients:
        return None
    first = next(iter(coefficients.values()))
    return first if all(values == first for values in coefficients.values()) else coefficients


def _main_dtype(plan: Plan) -> str:
    """The number format of most of the output's weights."""
    sizes: dict[str, int] = {}
    for key in plan.keys:
        sizes[plan.dtypes[key]] = sizes.get(plan.dtypes[key], 0) + plan.base.tensors[key].numel
    return max(sizes, key=lambda name: sizes[name]) if sizes else "F32"
