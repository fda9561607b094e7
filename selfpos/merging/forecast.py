"""How long a merge takes on this machine, by a part of it that is tried."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfpos.merging.merge import make_stream, prepare
from selfpos.merging.output.weights import Output, Task, merge_and_write
from selfpos.merging.plan import Plan
from selfpos.storage.tensor_file import TensorFileWriter
from selfpos.vectors.names import is_linear_map

TRIED = 8 * 2**20
"""Elements that are merged to learn how fast the rest goes."""
PATIENCE = 5.0
"""Seconds that a matrix may take to be tried; those of a larger one follow from its number of products."""


def seconds_of(plan: Plan) -> float:
    """About the seconds that `plan` takes once its models are read; the start of the program is not in it.

    Some tensors are merged and written to a temporary file on the disk of the output; of methods on matrices
    one of each shape. Raises SelfposError where a number of them is not finite, OSError where that disk
    refuses.
    """
    matrices: dict[tuple[int, ...], list[str]] = {}
    others = []
    for key in plan.keys:
        shape = plan.base.tensors[key].shape
        if key in plan.tied:
            continue
        if plan.method.chunking == "matrix" and is_linear_map(key, shape):
            matrices.setdefault(shape, []).append(key)
        else:
            others.append(key)
    total = 0.0
    if others:
        part = _part(plan, others)
        total += _try(plan, part) * _elements(plan, others) / _elements(plan, part)
    a_product = 0.0
    for shape, keys in sorted(matrices.items(), key=lambda item: _products(item[0])):
        seconds = a_product * _products(shape)
        if seconds <= PATIENCE:
            seconds = _try(plan, keys[:1])
            a_product = seconds / _products(shape)
        total += seconds * len(keys)
    return total


def _products(shape: Sequence[int]) -> int:
    """In proportion to the multiplications of a decomposition of a matrix."""
    rows, columns = shape
    return rows * columns * min(rows, columns)


def _part(plan: Plan, keys: Sequence[str]) -> list[str]:
    """Tensors of about TRIED elements in all, the largest of those that are no larger than that."""
    by_size = sorted(keys, key=lambda key: -plan.base.tensors[key].numel)
    part: list[str] = []
    for key in [key for key in by_size if plan.base.tensors[key].numel <= TRIED] or by_size[-1:]:
        part.append(key)
        if _elements(plan, part) >= TRIED:
            break
    return part


def _elements(plan: Plan, keys: Sequence[str]) -> int:
    return max(1, sum(plan.base.tensors[key].numel for key in keys))


def _try(plan: Plan, keys: Sequence[str]) -> float:
    """The seconds for merging the tensors `keys` alone."""
    from threadpoolctl import threadpool_limits

    part = replace(plan, keys=tuple(keys), tied={})
    disk = next(folder for folder in plan.out.absolute().parents if folder.is_dir())
    shapes = {key: (plan.dtypes[key], plan.base.tensors[key].shape) for key in keys}
    threads = threadpool_limits(plan.threads if plan.method.chunking == "matrix" else 1)
    with threads, tempfile.TemporaryDirectory(dir=disk, prefix=".selfpos-") as name:
        folder = Path(name)
        writer = TensorFileWriter(folder / "tried.safetensors", shapes, {})
        try:
            began = time.perf_counter()
            stream = make_stream(part)
            output = Output(part, folder, prepare(part, stream)[0], {})
            tasks = [Task([writer], key, key, 0, ranges) for key, ranges in stream.tasks()]
            merge_and_write(tasks, [output], stream)
            writer.sync()
            return time.perf_counter() - began
        finally:
            writer.close()
