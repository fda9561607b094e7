"""From names on the command line or in a recipe to MTEB tasks whose data is known to be there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.console import quiet_libraries
from selfpos.errors import SelfposError, unknown
from selfpos.evaluation import corpus_tasks, hub_layout, local_data, own_tasks
from selfpos.evaluation.tasks import KINDS

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from selfpos.recipe import EvaluationSettings

CORPUS = "corpus"
QUICK = "quick"
# One task per type, each of a few thousand short texts, so that a small model is scored in minutes on a CPU; those of MTEB's English benchmark where
# it has such. Beside each, what stands in for it on local data that MTEB has no task for.
QUICK_TASKS = {
    "STSBenchmark": None,
    "Banking77Classification": None,
    "TwitterSemEval2015": "selfpos-MRPC",
    "AskUbuntuDupQuestions": "selfpos-WikiQAReranking",
    "TwentyNewsgroupsClustering.v2": "selfpos-TwentyNewsgroupsSubjects",
    "FeedbackQARetrieval": None,
}


def select_tasks(
    names: Sequence[str],
    benchmark: str | None = None,
    data_dir: Path | None = None,
    *,
    types: Sequence[str] = (),
    languages: Sequence[str] = (),
) -> list[AbsTask]:
    """The tasks called `names`, and those of the MTEB benchmark called `benchmark`, each once; with neither, all of MTEB's of `types` and `languages`.

    `corpus` stands for the tasks of the embedded corpus, which need no data; `quick` for one small task per type; a YAML file for the task that it
    declares (see `own_tasks`); `selfpos-…` are tasks of our own on local data. `types` (MTEB's, as 'STS') and `languages` (as 'eng' or 'eng-Latn')
    leave others out. With `data_dir` all other data is read from there, in our layout or in the Hub's, and nothing is downloaded; without, mteb
    fetches it, unless HF_HUB_OFFLINE is set and it has not been fetched before.
    Raises SelfposError for an unknown name (with the nearest right one), and listing everything that is missing at once.
    """
    if not names and benchmark is None and not types and not languages:
        raise SelfposError(
            "name at least one task with --tasks, or a benchmark with --benchmark; 'corpus' needs no data, 'quick' takes minutes on a CPU"
        )
    if data_dir is not None and not data_dir.is_dir():
        raise SelfposError(f"there is no folder {data_dir} to read MTEB data from")
    with quiet_libraries(hide_warnings=True):
        chosen = _chosen(names, benchmark, types, languages, data_dir)
        return _with_data(chosen, data_dir)


def recipe_tasks(settings: EvaluationSettings, data_root: Path | None) -> list[AbsTask]:
    """The tasks that every model of a run is scored on: those its recipe names, and its `local` ones where there is a folder of data."""
    data_dir = Path(settings.data_dir) if settings.data_dir else data_root
    names = [*settings.tasks, *(settings.local if data_dir is not None else [])]
    return select_tasks(names, benchmark=settings.benchmark, data_dir=data_dir)


def wanted_tasks(
    names: Sequence[str], benchmark: str | None, types: Sequence[str] = (), languages: Sequence[str] = ()
) -> list[AbsTask]:
    """MTEB's tasks that `select_tasks` would take, whether their data is there or not; those that MTEB has no data for are left out."""
    with quiet_libraries(hide_warnings=True):
        chosen = _chosen(names, benchmark, types, languages, None)
        return [
            task
            for task in chosen.values()
            if not isinstance(task, str) and "/" in str(task.metadata.dataset["path"]) and _is_theirs(task)
        ]


def _is_theirs(task: AbsTask) -> bool:
    import mteb

    try:
        return bool(
            mteb.get_task(task.metadata.name).metadata.dataset["path"] == task.metadata.dataset["path"]
        )
    except KeyError:
        return False


def _chosen(
    names: Sequence[str],
    benchmark: str | None,
    types: Sequence[str],
    languages: Sequence[str],
    data_dir: Path | None,
) -> dict[str, AbsTask | str]:
    """Name -> task, of our own on local data still a name."""
    _check_filters(types, languages)
    tasks = [
        task
        for name in names
        for word in ([*_quick(data_dir)] if name == QUICK else [name])
        for task in _named(word)
    ]
    if benchmark is not None:
        tasks += _of_benchmark(benchmark)
    if not names and benchmark is None:
        import mteb

        tasks += list(
            mteb.get_tasks(
                task_types=list(types) or None, languages=list(languages) or None, modalities=["text"]
            )
        )  # type: ignore[arg-type]
    chosen: dict[str, AbsTask | str] = {}
    for task in tasks:
        key = task if isinstance(task, str) else task.metadata.name
        known = chosen.setdefault(key, task)
        if (
            not isinstance(known, str)
            and not isinstance(task, str)
            and known.metadata.dataset["path"] != task.metadata.dataset["path"]
        ):
            raise SelfposError(f"two tasks are called {key}; give the one of your own another name")
    kept = {name: task for name, task in chosen.items() if _fits(name, task, types, languages)}
    if chosen and not kept:
        raise SelfposError(
            f"none of the {len(chosen)} tasks is of type {', '.join(types) or 'any'} and language {', '.join(languages) or 'any'}"
        )
    return kept


def _fits(name: str, task: AbsTask | str, types: Sequence[str], languages: Sequence[str]) -> bool:
    """Whether the task is of one of `types` and has one of `languages`; other languages of it are left out."""
    kind = KINDS[local_data.OWN_TASKS[name].kind][1] if isinstance(task, str) else str(task.metadata.type)
    if types and kind not in types:
        return False
    if not languages:
        return True
    spoken = (
        ["eng-Latn"]
        if isinstance(task, str)
        else [code for codes in task.metadata.hf_subsets_to_langscripts.values() for code in codes]
    )
    if not any(code in languages or code.partition("-")[0] in languages for code in spoken):
        return False
    if not isinstance(task, str):
        task.filter_languages(languages=list(languages))
    return True


def _check_filters(types: Sequence[str], languages: Sequence[str]) -> None:
    from typing import get_args

    from mteb.abstasks.task_metadata import TaskType
    from mteb.languages import ISO_TO_LANGUAGE

    for kind in types:
        if kind not in get_args(TaskType):
            raise unknown("MTEB task type", kind, get_args(TaskType))
    for language in languages:
        if language.partition("-")[0] not in ISO_TO_LANGUAGE:
            raise SelfposError(
                f"there is no language '{language}'; languages have three letters (ISO 639-3), as eng, or a script besides, as eng-Latn"
            )


def _quick(data_dir: Path | None) -> list[str]:
    """The tasks of `quick`; with `data_dir`, stand-ins for those whose data is not there."""
    import mteb

    found = []
    for name, other in QUICK_TASKS.items():
        there = (
            data_dir is None
            or other is None
            or hub_layout.repository_folder(mteb.get_task(name), data_dir) is not None
        )
        found.append(name if there or other is None else other)
    return found


def local_tasks(data_dir: Path) -> list[AbsTask]:
    """All tasks whose data is in `data_dir`. Raises SelfposError when there is none."""
    import mteb

    if not data_dir.is_dir():
        raise SelfposError(f"there is no folder {data_dir} to read MTEB data from")
    with quiet_libraries(hide_warnings=True):
        known = {name: mteb.get_task(name) for name in local_data.MTEB_TASKS}
        there = [
            name
            for name in [*known, *local_data.OWN_TASKS]
            if not local_data.missing_files(name, data_dir, known.get(name))
        ]
    if not there:
        raise SelfposError(
            f"{data_dir} has the data of no task; expected folders such as stsbenchmark with test.jsonl"
        )
    return select_tasks(there, data_dir=data_dir)


def _named(name: str) -> list[AbsTask | str]:
    """The tasks a name stands for; one of our own on local data is still a name."""
    import mteb

    if name == CORPUS or name in corpus_tasks.NAMES:
        from selfpos.data.corpus import load_corpus

        return [
            task for task in corpus_tasks.corpus_tasks(load_corpus()) if name in (CORPUS, task.metadata.name)
        ]
    if name in local_data.OWN_TASKS:
        return [name]
    if name.endswith(own_tasks.ENDINGS):
        return [own_tasks.own_task(Path(name))]
    try:
        return [mteb.get_task(name)]
    except KeyError:
        known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)]
        raise unknown(
            "MTEB task", name, [*known, *local_data.OWN_TASKS, *corpus_tasks.NAMES, CORPUS, QUICK]
        ) from None


def _of_benchmark(name: str) -> list[AbsTask | str]:
    import mteb

    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError:
        raise unknown(
            "MTEB benchmark", name, [benchmark.name for benchmark in mteb.get_benchmarks()]
        ) from None


def _with_data(chosen: dict[str, AbsTask | str], data_dir: Path | None) -> list[AbsTask]:
    ready: list[AbsTask] = []
    missing: list[str] = []
    for name, task in chosen.items():
        theirs = None if isinstance(task, str) else task
        if theirs is not None and str(theirs.metadata.dataset["path"]).startswith(("selfpos/", "own/")):
            ready.append(theirs)  # it has its data
        elif data_dir is None:
            if theirs is None:
                missing.append(f"{name} (only on local data)")
            elif offline() and not fetched_before(theirs):
                missing.append(f"{name} (data set {theirs.metadata.dataset['path']})")
            else:
                ready.append(theirs)
        else:
            known = theirs is None or name in local_data.MTEB_TASKS
            lacking = local_data.missing_files(name, data_dir, theirs) if known else []
            repository = None if theirs is None else hub_layout.repository_folder(theirs, data_dir)
            if known and not lacking:
                ready.append(local_data.local_task(name, data_dir, theirs))
            elif theirs is not None and repository is not None:
                ready.append(hub_layout.served(theirs, repository))
            elif known:
                missing.append(f"{name} ({', '.join(lacking)})")
            else:
                missing.append(f"{name} ({theirs.metadata.dataset['path'] if theirs else name}/)")
    if missing:
        where = f"in {data_dir}" if data_dir is not None else "on this machine"
        remedy = (
            "put the files there (`selfpos fetch-data` does, where there is a network), or leave out --data-dir to let mteb fetch data from the Hub"
            if data_dir is not None
            else "give a folder that has it with --data-dir, or unset HF_HUB_OFFLINE to let mteb fetch it"
        )
        raise SelfposError(
            f"data for {len(missing)} of {len(chosen)} tasks is missing {where}: {'; '.join(missing)}; {remedy}"
        )
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
