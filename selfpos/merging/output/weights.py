"""Writing the merged weights chunk by chunk, so that an interrupted merge continues where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
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


Merge = Callable[[Chunk], Array]


@dataclass(frozen=True)
class Output:
    """A merged model that is being written to `folder`: `merge` maps a chunk to the merged V."""

    plan: Plan
    folder: Path
    merge: Merge
    metadata: dict[str, str]


@dataclass(frozen=True)
class Task:
    """Work for one thread: merge these ranges of tensor `key` and write them under `name`, from its element
    `first` on, by the writer of each output.
    """

    writers: list[TensorFileWriter]
    name: str
    key: str
    first: int
    ranges: Ranges


def write_weights(outputs: Sequence[Output], stream: Stream) -> None:
    """Merge and write every tensor; those that are not merged are copied from the frame.

    The outputs have the same files and tensors: their plans differ in method, weights and parameters.
    """
    plan = outputs[0].plan
    merged = set(plan.keys)
    tasks = []
    with ExitStack() as stack:
        for file in plan.files:
            shapes = {
                name: (plan.dtypes[keys[0]], plan.frame.tensors[keys[0]].whole)
                for name, keys in file.tensors.items()
            }
            writers = []
            for output in outputs:
                path = output.folder / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                writers.append(TensorFileWriter(path, shapes, output.metadata))
                stack.callback(writers[-1].close)
            for name, key in ((name, key) for name, keys in file.tensors.items() for key in keys):
                entry, dtype = plan.frame.tensors[key], plan.dtypes[key]
                if key in merged:
                    tasks += [
                        Task(writers, name, key, entry.first, ranges) for _, ranges in stream.tasks([key])
                    ]
                    continue
                raw = plan.frame.raw(key)
                bits = raw if dtype == entry.dtype else from_float32(to_float32(raw, entry.dtype), dtype)
                for writer in writers:
                    writer.write(name, bits, entry.first * STORED[dtype].itemsize)
        merge_and_write(tasks, outputs, stream)
    for output in outputs:
        write_indices(output.folder, plan.files, {key: plan.nbytes(key) for key in plan.dtypes})


def merge_and_write(tasks: list[Task], outputs: Sequence[Output], stream: Stream) -> None:
    """Carry out `tasks`, but for those that an interrupted merge has written; note what is on disk."""

    def work(task: Task) -> None:
        for chunk in stream.chunks(task.key, task.ranges):
            for output, writer in zip(outputs, task.writers, strict=True):
                if not _write(output, writer, task, chunk):
                    _refuse(output.plan, stream, task, named=len(outputs) > 1)

    done = min(len(tasks), *(_written(output.folder) for output in outputs))
    if done:
        log.info(f"continuing an interrupted merge: {done} of {len(tasks)} pieces were written")
        elements = sum(stop - start for task in tasks[:done] for start, stop in task.ranges)
        stream.advance(elements * (1 + len(stream.vectors)))
    last, finished = time.monotonic(), done
    try:
        for number, _ in enumerate(stream.map(work, ((task,) for task in tasks[done:])), start=done + 1):
            finished = number
            if time.monotonic() - last >= CHECKPOINT_SECONDS:
                _note(tasks, finished, outputs)
                last = time.monotonic()
    except KeyboardInterrupt:
        if finished > done:
            _note(tasks, finished, outputs)
        raise


def _write(output: Output, writer: TensorFileWriter, task: Task, chunk: Chunk) -> bool:
    """Merge a chunk and write it; False for numbers that are not finite, which are not written.

    What it holds is free before the next output is merged: a chunk may be a large matrix.
    """
    dtype = output.plan.dtypes[task.key]
    merged = output.merge(chunk)
    merged += chunk.base
    values: np.ndarray = merged if isinstance(merged, np.ndarray) else merged.cpu().numpy()
    stored = from_float32(values.reshape(-1), dtype)
    if not finite(values) or (dtype == "F16" and not np.isfinite(stored).all()):
        return False
    writer.write(task.name, stored, (task.first + chunk.start) * STORED[dtype].itemsize)
    return True


def _written(folder: Path) -> int:
    """How many tasks, from the first, are certainly on disk."""
    return int(read_json(folder / JOURNAL, missing_ok=True).get("pieces", 0))


def _note(tasks: list[Task], finished: int, outputs: Sequence[Output]) -> None:
    for writer in {writer for task in tasks for writer in task.writers}:
        writer.sync()
    for output in outputs:
        write_text(output.folder / JOURNAL, json.dumps({"pieces": finished}))


def _refuse(plan: Plan, stream: Stream, task: Task, *, named: bool) -> None:
    """Raise SelfposError for numbers that are not finite: an input's, else those of the merge, which is
    `named` by its output.
    """
    for chunk in replace(stream, checked=True, on_access=False).chunks(task.key, task.ranges):
        for _ in chunk.vectors:
            pass
    dtype = plan.dtypes[task.key]
    remedy = "write bfloat16 or float32" if dtype == "F16" else "make weights or scale smaller"
    name = f"{plan.out.name}: " * named
    raise SelfposError(
        f"{name}method {plan.method.name}: merged tensor {task.key} holds numbers beyond the range of "
        f"{TORCH[dtype]}; {remedy}"
    )
