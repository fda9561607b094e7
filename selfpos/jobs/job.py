"""Jobs of a run: what is finished is kept, what is missing is done, in order, each result whole or absent."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.console import log, screen
from selfpos.errors import SelfposError
from selfpos.storage.atomic import held, write_text
from selfpos.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Job:
    """One piece of a run.

    `inputs` is everything that decides its result, apart from the jobs named in `after`; `work` writes
    `output`.

    `continues`: its work continues from output that is there, as an evaluation does task by task. `derived`:
    it is made in seconds from other results, as a table or a report. Both may meet output of other inputs.
    `cpus` and `gpus` are what it asks of a cluster.
    """

    name: str
    inputs: dict[str, Any]
    output: Path
    work: Callable[[], object]
    after: tuple[str, ...] = ()
    continues: bool = False
    derived: bool = False
    cpus: float = 1
    gpus: float = 0


Executor = Callable[[Sequence[Job], RunFolder], list[str]]
"""What does the unfinished jobs of a run and returns their names: `execute` in this process,
`selfpos.jobs.ray.execute_on_ray` on a cluster.
"""


def job_keys(jobs: Sequence[Job]) -> dict[str, str]:
    """The key of each job: a hash of its inputs and of the keys of the jobs before it.

    Equal keys mean equal results.
    """
    keys: dict[str, str] = {}
    for job in jobs:
        described = {"name": job.name, "inputs": job.inputs, "after": [keys[before] for before in job.after]}
        keys[job.name] = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return keys


def refuse_foreign(jobs: Sequence[Job], folder: RunFolder) -> None:
    """Raise SelfposError when the folder holds a result of these jobs that other settings or data made:
    nothing is overwritten.
    """
    keys = job_keys(jobs)
    lasting = [job for job in jobs if not (job.continues or job.derived)]
    foreign = [
        job.name
        for job in lasting
        if (mark := _read_mark(folder.mark(job.name))) and mark["key"] != keys[job.name]
    ]
    if foreign:
        raise SelfposError(
            f"{folder.path} holds results made with other settings or data ({', '.join(foreign)}); choose "
            "another folder with --out, or remove it"
        )


def execute(jobs: Sequence[Job], folder: RunFolder) -> list[str]:
    """Do the jobs that are not finished, in the order given, and return their names.

    Raises SelfposError, before anything is done, as `refuse_foreign` does.
    """
    left = unfinished(jobs, folder)
    keys = job_keys(jobs)
    for job in left:
        screen().print(f"[bold]{jobs.index(job) + 1}/{len(jobs)}[/bold] {job.name}")
        log.info("%s: started", job.name)
        finish(job, keys[job.name], carry_out(job), folder)
    return [job.name for job in left]


def unfinished(jobs: Sequence[Job], folder: RunFolder) -> list[Job]:
    """Those of the jobs whose result an earlier start has not left, with what derives from them.

    Raises SelfposError as `refuse_foreign` does.
    """
    refuse_foreign(jobs, folder)
    keys = job_keys(jobs)
    left: dict[str, Job] = {}
    for job in jobs:
        mark = _read_mark(folder.mark(job.name))
        stale = job.derived and any(name in left for name in job.after)
        if mark and mark["key"] == keys[job.name] and job.output.exists() and not stale:
            log.info("%s: finished before, kept", job.name)
        else:
            left[job.name] = job
    return list(left.values())


def carry_out(job: Job) -> float:
    """Do the work of a job; returns the seconds it took."""
    if not job.continues:  # what is there was written whole, but the run was stopped before it could say so
        if job.output.is_dir():
            shutil.rmtree(job.output)
        job.output.unlink(missing_ok=True)
    started = time.monotonic()
    job.work()
    return time.monotonic() - started


def finish(job: Job, key: str, seconds: float, folder: RunFolder) -> None:
    """Mark a job as finished."""
    mark = folder.mark(job.name)
    mark.parent.mkdir(parents=True, exist_ok=True)
    facts = {"key": key, "seconds": round(seconds, 3), "inputs": job.inputs}
    write_text(mark, json.dumps(facts, indent=1))
    log.info("%s: finished in %.1f s", job.name, seconds)


def refuse_other(folder: RunFolder) -> None:
    """Raise SelfposError where the run's folder is a file, or holds other things than a run."""
    path = folder.path
    if path.exists() and not path.is_dir():
        raise SelfposError(f"{path} is a file; choose another folder for the run with --out")
    if path.is_dir() and any(path.iterdir()) and not (folder.lock.exists() or folder.recipe.exists()):
        raise SelfposError(
            f"{path} exists and holds other things than a run; choose another folder with --out"
        )


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run's folder for this process while the block runs; make it if it is not there.

    Raises SelfposError where another process works in it, it is a file, or it holds other things than a run
    (whose unfinished results are removed); OperationError where the disk refuses.
    """
    refuse_other(folder)
    path = folder.path
    busy = f"another selfpos is working in {path}; wait for it or choose another folder with --out"
    with held(folder.lock, busy):
        yield


def _read_mark(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
