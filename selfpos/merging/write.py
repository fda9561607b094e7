"""Writing the merged weights piece by piece, so that an interrupted merge goes on from where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.merging.halves import stored_halves, sums
from selfpos.merging.layout import write_indices
from selfpos.merging.plan import Plan
from selfpos.merging.prepare import Prepared
from selfpos.merging.stream import Stream, finite
from selfpos.storage.atomic import write_text
from selfpos.storage.model_folder import read_json
from selfpos.storage.numbers import STORED, TORCH, from_float32, to_float32
from selfpos.storage.tensor_file import TensorFileWriter

JOURNAL = ".journal"
CHECKPOINT_SECONDS = 20.0
"""How much work a kill may cost: so often is everything written flushed to disk and noted."""


@dataclass(frozen=True)
class Task:
    """A piece of work: merge these ranges of tensor `key` and write them under `name`."""

    writer: TensorFileWriter
    name: str
    key: str
    ranges: list[tuple[int, int]]


def write_weights(
    plan: Plan, stream: Stream, prepared: Prepared, folder: Path, metadata: dict[str, str]
) -> None:
    """Merge and write every tensor; those that are not merged (buffers, tensors taken whole) are the frame's."""
    with ExitStack() as stack:
        writers = []
        for file in plan.files:
            (folder / file.path.parent).mkdir(parents=True, exist_ok=True)
            shapes = {
                name: (plan.dtypes[key], plan.frame.tensors[key].shape) for name, key in file.tensors.items()
            }
            writers.append(TensorFileWriter(folder / file.path, shapes, metadata))
            stack.callback(writers[-1].close)
        merged = set(plan.keys)
        for file, writer in zip(plan.files, writers, strict=True):
            for name, key in file.tensors.items():
                if key not in merged:
                    writer.write(name, _taken(plan, key))
        tasks = list(_tasks(plan, stream, writers))
        _carry_out(tasks, plan, stream, prepared, folder, writers)
    write_indices(folder, plan.files, {key: plan.nbytes(key) for key in plan.dtypes})


def _tasks(plan: Plan, stream: Stream, writers: list[TensorFileWriter]) -> Iterator[Task]:
    merged = set(plan.keys)
    for file, writer in zip(plan.files, writers, strict=True):
        for name, key in file.tensors.items():
            if key in merged:
                yield from (Task(writer, name, key, ranges) for _, ranges in stream.tasks([key]))


def _carry_out(
    tasks: list[Task],
    plan: Plan,
    stream: Stream,
    prepared: Prepared,
    folder: Path,
    writers: list[TensorFileWriter],
) -> None:
    def by_halves(task: Task) -> list[tuple[int, int]]:
        """Merge and write what can be summed as it is stored; the ranges that remain."""
        key = stream.tied.get(task.key, task.key)
        stored = stored_halves(stream, key) if plan.dtypes[task.key] == "BF16" else None
        if prepared.coefficients is None or stored is None:
            return task.ranges
        remaining = []
        for start, stop, bits in sums(stored, prepared.coefficients[key], task.ranges):
            if bits is None:
                remaining.append((start, stop))
            else:
                task.writer.write(task.name, bits, start * bits.itemsize)
                stream.advance((stop - start) * len(stored))
        return remaining

    def work(task: Task) -> None:
        dtype = plan.dtypes[task.key]
        for chunk in stream.chunks(task.key, by_halves(task)):
            merged = prepared.merge(chunk)
            merged += chunk.base
            values: np.ndarray = merged if isinstance(merged, np.ndarray) else merged.cpu().numpy()
            stored = from_float32(values.reshape(-1), dtype)
            if not finite(values) or (dtype == "F16" and not np.isfinite(stored).all()):
                _refuse_damaged(stream, task)
                raise _overflow(plan, task.key, dtype)
            task.writer.write(task.name, stored, chunk.start * STORED[dtype].itemsize)

    done = min(_journal(folder), len(tasks))
    if done:
        log.info(f"continuing an interrupted merge: {done} of {len(tasks)} pieces were written")
        stream.advance(
            sum(stop - start for task in tasks[:done] for start, stop in task.ranges)
            * (1 + len(plan.vectors))
        )

    def note(finished: int) -> None:
        for writer in writers:
            writer.sync()
        write_text(folder / JOURNAL, json.dumps({"pieces": finished}))

    last, finished = time.monotonic(), done
    try:
        for number, _ in enumerate(stream.map(work, ((task,) for task in tasks[done:])), start=done + 1):
            finished = number
            if time.monotonic() - last >= CHECKPOINT_SECONDS:
                note(finished)
                last = time.monotonic()
    except KeyboardInterrupt:
        if finished > done:
            note(finished)
        raise


def _refuse_damaged(stream: Stream, task: Task) -> None:
    """Raise SelfposError where it is an input that holds numbers that are not finite."""
    for chunk in replace(stream, checked=True, one_by_one=False).chunks(task.key, task.ranges):
        for _ in chunk.vectors:
            pass


def _overflow(plan: Plan, key: str, dtype: str) -> SelfposError:
    remedy = "write bfloat16 or float32" if dtype == "F16" else "make weights or scale smaller"
    return SelfposError(
        f"method {plan.method.name}: merged tensor {key} holds numbers beyond the range of {TORCH[dtype]}; {remedy}"
    )


def _journal(folder: Path) -> int:
    """How many pieces, from the first, are on disk for certain."""
    file = folder / JOURNAL
    data: Any = read_json(file) if file.is_file() else {}
    return int(data.get("pieces", 0))


def _taken(plan: Plan, key: str) -> np.ndarray:
    entry, dtype = plan.frame.tensors[key], plan.dtypes[key]
    raw = plan.frame.raw(key)
    return raw if dtype == entry.dtype else from_float32(to_float32(raw, entry.dtype), dtype)


def interrupted_with_progress(folder: Path) -> bool:
    """Whether a temporary folder holds work that a second start can use."""
    return (folder / JOURNAL).is_file()
