"""From a plan and a probe set to the plan with its data statistics, one file per specialist and kind."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import log, progress
from selfpos.devices import default_device
from selfpos.errors import OperationError, SelfposError, nearest
from selfpos.recipe import PositioningSettings
from selfpos.storage.atomic import flush, locked
from selfpos.storage.model_class import class_of
from selfpos.storage.tensor_file import TensorFileWriter, read_header

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.merging import Plan
    from selfpos.positioning.objective import Batch, TaskProbe

VERSION = 1
"""Of what the files hold: another definition makes old ones useless."""


@dataclass(frozen=True)
class Wanted:
    """One statistic of the vector at `index` in the plan, from `batches` of its task.

    `file` is named by the hash of everything that decides it.
    """

    statistic: str
    index: int
    task: TaskProbe
    batches: list[Batch]
    fingerprint: str
    file: Path


@contextmanager
def gathered(plan: Plan, probe: Mapping[str, ProbeTask], folder: Path | None = None) -> Iterator[Plan]:
    """Yield `plan` with its statistics: of each specialist, on the probe task of its name.

    They are kept in `folder` for later merges; without it beside the output, until the block succeeds. What a
    stopped start has finished is not done again. Raises SelfposError for names that do not match, records
    that make no batch, a loss that is not finite and damaged models; OperationError when the disk refuses.
    """
    kept = folder or plan.out.with_name(f".{plan.out.name}.statistics")
    tasks = _match(plan, probe)
    wanted = [
        _wanted(plan, statistic, index, task, kept)
        for statistic in plan.method.probe
        for index, task in enumerate(tasks)
    ]
    with locked(kept):
        try:
            kept.mkdir(parents=True, exist_ok=True)
            _gather(plan, [entry for entry in wanted if not entry.file.exists()])
        except OSError as error:
            raise OperationError(f"cannot gather statistics in {kept}: {error.strerror or error}") from error
        except SelfposError:
            if folder is None:
                shutil.rmtree(kept, ignore_errors=True)
            raise
        files: dict[str, list[Path]] = {statistic: [] for statistic in plan.method.probe}
        for entry in wanted:
            files[entry.statistic].append(entry.file)
        records = {
            name: {"type": task.type.name, "records": len(task.records), "hash": probe_hash(task)}
            for name, task in probe.items()
        }
        fingerprints = {f"{entry.statistic} of {entry.task.name}": entry.fingerprint for entry in wanted}
        yield plan.with_statistics(files, {"statistics": {"probe": records, "fingerprints": fingerprints}})
        if folder is None:
            shutil.rmtree(kept, ignore_errors=True)


def probe_hash(task: ProbeTask) -> str:
    """SHA-256 (hex) over the records of a probe task as a specialist sees them, after their prompts."""
    from selfpos.data.sources import hash_records

    return hash_records(task.dataset)


def check(plan: Plan, probe: Mapping[str, ProbeTask]) -> None:
    """Raise SelfposError where `gathered` would for a probe set that does not fit the plan."""
    kind = class_of(plan.base.path)
    for statistic in plan.method.probe:
        if kind not in kinds()[statistic].CLASSES:
            raise SelfposError(
                f"method {plan.method.name} takes no {kind}, as {plan.base.path} is: merge such by regmean, "
                "by self-positioning, or by a method that uses no data"
            )
    _match(plan, probe)
    check_probe(plan.method.probe, probe, plan.options.seed)


def check_probe(statistics: tuple[str, ...], probe: Mapping[str, ProbeTask], seed: int) -> None:
    """Raise SelfposError when the records of a task do not make a batch that these statistics need."""
    for name in statistics:
        for task in probe.values():
            kinds()[name].batches(task_probe(task), seed)


def kinds() -> dict[str, Any]:
    """The kinds of statistics: name → the module with its `CLASSES`, `shapes`, `batches` and `gather`."""
    from selfpos.statistics import fisher, gram

    return {"fisher": fisher, "gram": gram}


def _match(plan: Plan, probe: Mapping[str, ProbeTask]) -> list[TaskProbe]:
    """The probe task of each vector, in their order."""
    names = [vector.name for vector in plan.vectors]
    method = plan.method.name
    for vector in plan.vectors:
        if vector.name not in probe:
            raise SelfposError(
                f"method {method} needs probe records of every vector's task, and the probe set has no task "
                f"'{vector.name}'{nearest(vector.name, probe)}; it holds {', '.join(probe) or 'nothing'}"
            )
        if vector.differences:
            raise SelfposError(
                f"{vector.name} differs from the base ({vector.differences[0]}), so method {method} cannot "
                "run it"
            )
    for name in probe:
        if name not in names:
            raise SelfposError(
                f"the probe set holds the task '{name}', for which there is no vector{nearest(name, names)}; "
                f"method {method} uses each specialist's task only: omit the task, or give its vector"
            )
    return [task_probe(probe[name]) for name in names]


def task_probe(task: ProbeTask) -> TaskProbe:
    """A probe task with the loss that a search would use by default."""
    from selfpos.positioning.objective import PROBES

    probe = PROBES[task.type.model_class]
    return probe(task.name, task.type, task.dataset, PositioningSettings().temperature)


def _wanted(plan: Plan, statistic: str, index: int, task: TaskProbe, folder: Path) -> Wanted:
    batches = kinds()[statistic].batches(task, plan.options.seed)
    records = [(batch.columns, None if batch.labels is None else batch.labels.tolist()) for batch in batches]
    temperature = PositioningSettings().temperature
    models = plan.hashes[0], plan.hashes[1 + index]
    facts = [VERSION, statistic, *models, task.type.name, temperature, records]
    fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    file = folder / f"{statistic}-{fingerprint[:16]}.safetensors"
    return Wanted(statistic, index, task, batches, fingerprint, file)


def _gather(plan: Plan, missing: list[Wanted]) -> None:
    if not missing:
        return
    import torch

    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.objective import texts_of

    _refuse_damaged(plan)
    live = LiveModel(plan.base, plan.vectors, device=default_device(), kind=class_of(plan.base.path))
    stored_key = {key: plan.tied.get(key, key) for key in live.keys}
    total = sum(len(texts_of(entry.batches)) for entry in missing)
    with progress(f"statistics ({plan.method.name})", total, unit="text") as bar:
        for entry in missing:
            coefficients = torch.zeros(len(live.keys), len(plan.vectors), dtype=torch.float64)
            coefficients[:, entry.index] = 1
            live.set_coefficients(coefficients)
            kind = kinds()[entry.statistic]
            shapes = kind.shapes(live)
            stored = {stored_key[key]: shape for key, shape in shapes.items()}
            with growing_sums(entry.file, stored, {"selfpos": entry.fingerprint}) as sums:
                by_key = {key: sums[stored_key[key]] for key in shapes}
                for texts in kind.gather(live, entry.task, entry.batches, by_key):
                    bar.advance(texts, task=entry.task.name)
            log.info("%s of %s gathered", entry.statistic, entry.task.name)


def _refuse_damaged(plan: Plan) -> None:
    """Read everything once: the engine names file and tensor of numbers that are not finite."""
    from selfpos.merging.merge import make_stream

    stream = replace(make_stream(plan), chunking="element")
    for _ in stream.map(lambda key, ranges: sum(1 for _ in stream.chunks(key, ranges)), stream.tasks()):
        pass


@contextmanager
def growing_sums(
    file: Path, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> Iterator[Mapping[str, np.ndarray]]:
    """Zeros of `shapes` (float32) to add to in place, memory-mapped in a safetensors file.

    The file appears when the block succeeds. Raises OSError at once when the disk has no room for it.
    """
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)  # what a killed process has added is not known
    try:
        TensorFileWriter(part, {key: ("F32", shape) for key, shape in shapes.items()}, metadata).close()
        with part.open("r+b") as handle:
            if hasattr(os, "posix_fallocate"):  # a full disk would kill a process that writes to the map
                os.posix_fallocate(handle.fileno(), 0, part.stat().st_size)
            mapped = mmap.mmap(handle.fileno(), 0)
        whole = np.frombuffer(mapped, np.uint8)
        yield {
            key: whole[entry.offset : entry.offset + entry.nbytes].view(np.float32).reshape(entry.shape)
            for key, entry in read_header(part)[0].items()
        }
        mapped.flush()
        flush(part)
        part.replace(file)
        flush(file.parent)
    finally:
        part.unlink(missing_ok=True)
