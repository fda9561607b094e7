"""From names on the command line or in a recipe to MTEB tasks whose data is known to be there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.errors import SelfposError, unknown
from selfpos.evaluation import corpus_tasks, local_data
from selfpos.quiet import quiet_libraries

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

CORPUS = "corpus"


def select_tasks(names: Sequence[str], benchmark: str | None = None, data_dir: Path | None = None) -> list[AbsTask]:
    """The tasks called `names`, and those of the MTEB benchmark called `benchmark`, each once.

    `corpus` stands for the tasks of the embedded corpus, which need no data; `selfpos-…` are tasks of our own on local data. With `data_dir` all other
    data is read from there and nothing is downloaded; without, mteb fetches it, unless HF_HUB_OFFLINE is set and it has not been fetched before.
    Raises SelfposError for an unknown name (with the nearest right one), and listing everything that is missing at once.
    """
    if not names and benchmark is None:
        raise SelfposError("name at least one task with --tasks, or a benchmark with --benchmark; 'corpus' needs no data")
    if data_dir is not None and not data_dir.is_dir():
        raise SelfposError(f"there is no folder {data_dir} to read MTEB data from")
    with quiet_libraries(hide_warnings=True):
        tasks = [task for name in names for task in _named(name)]
        if benchmark is not None:
            tasks += _of_benchmark(benchmark)
        chosen = {task if isinstance(task, str) else task.metadata.name: task for task in tasks}
        return _with_data(chosen, data_dir)


def local_tasks(data_dir: Path) -> list[AbsTask]:
    """All tasks whose data is in `data_dir`. Raises SelfposError when there is none."""
    import mteb

    if not data_dir.is_dir():
        raise SelfposError(f"there is no folder {data_dir} to read MTEB data from")
    with quiet_libraries(hide_warnings=True):
        known = {name: mteb.get_task(name) for name in local_data.MTEB_TASKS}
        there = [name for name in [*known, *local_data.OWN_TASKS] if not local_data.missing_files(name, data_dir, known.get(name))]
    if not there:
        raise SelfposError(f"{data_dir} has the data of no task; expected folders such as stsbenchmark with test.jsonl")
    return select_tasks(there, data_dir=data_dir)


def _named(name: str) -> list[AbsTask | str]:
    """The tasks a name stands for; one of our own on local data is still a name."""
    import mteb

    if name == CORPUS or name in corpus_tasks.NAMES:
        from selfpos.data.corpus import load_corpus

        return [task for task in corpus_tasks.corpus_tasks(load_corpus()) if name in (CORPUS, task.metadata.name)]
    if name in local_data.OWN_TASKS:
        return [name]
    try:
        return [mteb.get_task(name)]
    except KeyError:
        known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
        raise unknown("MTEB task", name, [*known, *local_data.OWN_TASKS, *corpus_tasks.NAMES, CORPUS]) from None


def _of_benchmark(name: str) -> list[AbsTask | str]:
    import mteb

    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError:
        raise unknown("MTEB benchmark", name, [benchmark.name for benchmark in mteb.get_benchmarks()]) from None


def _with_data(chosen: dict[str, AbsTask | str], data_dir: Path | None) -> list[AbsTask]:
    ready: list[AbsTask] = []
    missing: list[str] = []
    for name, task in chosen.items():
        theirs = None if isinstance(task, str) else task
        if theirs is not None and name in corpus_tasks.NAMES:
            ready.append(theirs)
        elif data_dir is None:
            if theirs is None:
                missing.append(f"{name} (only on local data)")
            elif offline() and not fetched_before(theirs):
                missing.append(f"{name} (data set {theirs.metadata.dataset['path']})")
            else:
                ready.append(theirs)
        elif theirs is not None and name not in local_data.MTEB_TASKS:
            missing.append(f"{name} (no layout of local files is known for it)")
        elif lacking := local_data.missing_files(name, data_dir, theirs):
            missing.append(f"{name} ({', '.join(lacking)})")
        else:
            ready.append(local_data.local_task(name, data_dir, theirs))
    if missing:
        where = f"in {data_dir}" if data_dir is not None else "on this machine"
        remedy = (
            "put the files there, or leave out --data-dir to let mteb fetch data from the Hub"
            if data_dir is not None
            else "give a folder that has it with --data-dir, or unset HF_HUB_OFFLINE to let mteb fetch it"
        )
        raise SelfposError(f"data for {len(missing)} of {len(chosen)} tasks is missing {where}: {'; '.join(missing)}; {remedy}")
    return ready


def offline() -> bool:
    """Whether the user forbade the Hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def fetched_before(task: AbsTask) -> bool:
    """Whether the Hub's cache on this machine holds something of the task's data set."""
    from datasets import config
    from huggingface_hub import constants

    path = task.metadata.dataset["path"]
    places = (
        Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}",
        Path(config.HF_DATASETS_CACHE) / path.replace("/", "___"),
    )
    return Path(path).exists() or any(place.is_dir() for place in places)
