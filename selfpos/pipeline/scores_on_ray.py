"""Scoring one model on the workers of a Ray cluster, a task each: the same results in the same place as
`evaluate`, so either continues where the other stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log_to
from selfpos.errors import SelfposError
from selfpos.evaluation.run import TasksFailedError, check_tasks, evaluate, failures_message, task_identity
from selfpos.evaluation.select import select_tasks
from selfpos.jobs.job import Job, locked
from selfpos.jobs.ray import execute_on_ray
from selfpos.scores.files import TaskScore
from selfpos.storage.atomic import write_text
from selfpos.storage.manifest import read_json
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

# Beside MTEB's `results/`: lock, log and marks of the jobs, and what failed.
CONTROL = "ray"


def evaluate_on_ray(
    model: Path,
    tasks: Sequence[AbsTask],
    out: Path,
    *,
    selection: dict[str, Any],
    address: str,
    name: str,
    batch_size: int = 64,
    cache: Path | None = None,
    announce: Callable[[list[tuple[str, str]]], object] | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> dict[str, TaskScore]:
    """As `evaluate`, on the workers of the cluster at `address`; `select_tasks(**selection)` gives `tasks`
    there, too.

    Each task is a job that asks for `cpus` and `gpus`. Workers see the model, the data and `out` under the
    same paths. Of processes that share `cache`, one adds to it. A task that fails leaves the others alone.
    Raises as `evaluate` and `execute_on_ray` do.
    """
    from mteb import ResultCache

    from selfpos.evaluation.encoder import identity
    from selfpos.evaluation.wrapped import load_scored

    check_tasks(model, tasks, out)
    meta = identity(model, name)
    _, rows = load_scored(model, meta)  # a model that cannot be used is refused here, once
    if announce is not None:
        announce(rows)
    control = RunFolder(out / CONTROL)
    jobs = [
        Job(
            task.metadata.name,
            {"model": meta.revision, **task_identity(task)},
            ResultCache(out).get_task_result_path(task.metadata.name, meta),
            partial(_score, model, selection, task.metadata.name, out, name, batch_size, cache),
            continues=True,
            cpus=cpus,
            gpus=gpus,
        )
        for task in tasks
    ]
    with locked(control), log_to(control.log):
        execute_on_ray(jobs, control, address=address)
    notes = {job.name: _note(out, job.name) for job in jobs}
    failures = {name: str(read_json(note)["reason"]) for name, note in notes.items() if note.is_file()}
    rest = [task for task in tasks if task.metadata.name not in failures]
    scores = evaluate(model, rest, out, name=name, batch_size=batch_size, cache=cache) if rest else {}
    if failures:
        raise TasksFailedError(failures_message(failures, scores, name, out), failures, scores)
    return scores


def _score(
    model: Path,
    selection: dict[str, Any],
    title: str,
    out: Path,
    name: str,
    batch_size: int,
    cache: Path | None,
) -> None:
    """Score one task, on a worker; that it failed is noted, and is no failure of the job."""
    note = _note(out, title)
    note.unlink(missing_ok=True)
    try:
        (task,) = (task for task in select_tasks(**selection) if task.metadata.name == title)
        evaluate(model, [task], out, name=name, batch_size=batch_size, cache=cache)
    except TasksFailedError as error:
        reason = error.failures[title]
    except SelfposError as error:
        reason = str(error)
    else:
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps({"task": title, "reason": reason}) + "\n")


def _note(out: Path, title: str) -> Path:
    return out / CONTROL / "failures" / f"{title.replace('/', '.')}.json"
