"""Writing the merged weights chunk by chunk, so that an interrupted merge continues where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.merging.output.layout import write_indices
from selfpos.merging.plan import Plan
from selfpos.merging.stream import Array, Chunk, Ranges, Stream, finite
from selfpos.storage.atomic import write_text
from selfpos.storage.manifest import read_json
from selfpos.storage.numbers import STORED, TORCH, from_float32, to_float32
from selfpos.storage.tensor_file import TensorFileWriter

JOURNAL = ".journal"
CHECKPOINT_SECONDS = 20.0
"""How much work a kill may cost: so often everything written is flushed to disk and noted in the journal."""


@dataclass(frozen=True)
class Task:
    """Work for one thread: merge these ranges of tensor `key` and write them under `name`, from its element
    `first` on.
    """

    writer: TensorFileWriter
    name: str
    key: str
    first: int
    ranges: Ranges


Merge = Callable[[Chunk], Array]


def write_weights(plan: Plan, stream: Stream, merge: Merge, folder: Path, metadata: dict[str, str]) -> None:
    """Merge and write every tensor; those that are not merged are copied from the frame."""
    merged = set(plan.keys)
    tasks = []
    with ExitStack() as stack:
        for file in plan.files:
            (folder / file.path.parent).mkdir(parents=True, exist_ok=True)
            shapes = {
                name: (plan.dtypes[keys[0]], plan.frame.tensors[keys[0]].whole)
                for name, keys in file.tensors.items()
            }
            writer = TensorFileWriter(folder / file.path, shapes, metadata)
            stack.callback(writer.close)
            for name, key in ((name, key) for name, keys in file.tensors.items() for key in keys):
                entry, dtype = plan.frame.tensors[key], plan.dtypes[key]
                if key in merged:
                    tasks += [
                        Task(writer, name, key, entry.first, ranges) for _, ranges in stream.tasks([key])
                    ]
                    continue
                raw = plan.frame.raw(key)
                bits = raw if dtype == entry.dtype else from_float32(to_float32(raw, entry.dtype), dtype)
                writer.write(name, bits, entry.first * STORED[dtype].itemsize)
        _carry_out(tasks, plan, stream, merge, folder)
    write_indices(folder, plan.files, {key: plan.nbytes(key) for key in plan.dtypes})


def _carry_out(tasks: list[Task], plan: Plan, stream: Stream, merge: Merge, folder: Path) -> None:
    def work(task: Task) -> None:
        dtype = plan.dtypes[task.key]
        for chunk in stream.chunks(task.key, task.ranges):
            merged = merge(chunk)
            merged += chunk.base
            values: np.ndarray = merged if isinstance(merged, np.ndarray) else merged.cpu().numpy()
            stored = from_float32(values.reshape(-1), dtype)
            if not finite(values) or (dtype == "F16" and not np.isfinite(stored).all()):
                _refuse(plan, stream, task)
            task.writer.write(task.name, stored, (task.first + chunk.start) * STORED[dtype].itemsize)

    journal = read_json(folder / JOURNAL, missing_ok=True)
    done = min(int(journal.get("pieces", 0)), len(tasks))  # so many, from the first, are certainly on disk
    if done:
        log.info(f"continuing an interrupted merge: {done} of {len(tasks)} pieces were written")
        elements = sum(stop - start for task in tasks[:done] for start, stop in task.ranges)
        stream.advance(elements * (1 + len(plan.vectors)))
    last, finished = time.monotonic(), done
    try:
        for number, _ in enumerate(stream.map(work, ((task,) for task in tasks[done:])), start=done + 1):
            finished = number
            if time.monotonic() - last >= CHECKPOINT_SECONDS:
                _note(tasks, finished, folder)
                last = time.monotonic()
    except KeyboardInterrupt:
        if finished > done:
            _note(tasks, finished, folder)
        raise


def _note(tasks: list[Task], finished: int, folder: Path) -> None:
    for writer in {task.writer for task in tasks}:
        writer.sync()
    write_text(folder / JOURNAL, json.dumps({"pieces": finished}))


def _refuse(plan: Plan, stream: Stream, task: Task) -> None:
    """Raise SelfposError for numbers that are not finite: an input's, else those of the merge."""
    for chunk in replace(stream, checked=True, on_access=False).chunks(task.key, task.ranges):
        for _ in chunk.vectors:
            pass
    dtype = plan.dtypes[task.key]
    remedy = "write bfloat16 or float32" if dtype == "F16" else "make weights or scale smaller"
    raise SelfposError(
        f"method {plan.method.name}: merged tensor {task.key} holds numbers beyond the range of "
        f"{TORCH[dtype]}; {remedy}"
    )
