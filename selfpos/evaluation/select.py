"""From names on the command line or in a recipe to MTEB tasks whose data is available."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from selfpos.console import quiet_libraries
from selfpos.data.corpus import load_corpus
from selfpos.errors import SelfposError, unknown
from selfpos.evaluation import corpus_tasks, local_data, task_files
from selfpos.evaluation.local_data import MTEB_TASKS, OWN_TASKS, LocalFiles
from selfpos.evaluation.verified import fault_of, with_mark
from selfpos.recipe import EvaluationSettings
from selfpos.storage.file_kinds import CONFIG, MODULES

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


CORPUS = "corpus"
QUICK = "quick"
# One task per type, each of a few thousand short texts, so that a small model is scored in minutes on a CPU;
# the second is its stand-in on local data.
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
    subsets: Sequence[str] = (),
    option: str = "--data-dir",
) -> list[AbsTask]:
    """Select evaluation tasks whose data is available.

    Args:
        names: MTEB task names; `corpus` for the tasks of the embedded corpus, which need no data; `quick` for
            one small task per type; a YAML file for the task that it declares; `selfpos-…` for our own tasks
            on local data.
        benchmark: The name of an MTEB benchmark, whose tasks are added.
        data_dir: A folder from which all other data is read, in our layout or the Hub's; nothing is
            downloaded then. Without it mteb downloads the data, unless HF_HUB_OFFLINE is set and it is not in
            the Hub's cache.
        types: MTEB's types, such as 'STS'; tasks of other types are left out.
        languages: Languages, such as 'eng' or 'eng-Latn'; tasks and subsets in other languages are left out.
        subsets: Subsets as MTEB calls them, such as 'en-en' of STS17; others are left out.
        option: What the user gives `data_dir` by.

    Returns:
        Each task once. Without names and benchmark, all of MTEB's text tasks of `types` and `languages`.

    Raises:
        SelfposError: For an unknown name, with the nearest known one; and for missing data, all of it at
            once.
    """
    if not names and benchmark is None and not types and not languages and not subsets:
        raise SelfposError(
            "name at least one task with --tasks, or a benchmark with --benchmark; "
            "'corpus' needs no data, 'quick' takes minutes on a CPU"
        )
    _check_folder(data_dir)
    with quiet_libraries(hide_warnings=True):
        filters = types, languages, subsets
        return _with_data(_chosen(names, benchmark, filters, data_dir), data_dir, option)


def recipe_tasks(settings: EvaluationSettings, data_root: Path | None) -> list[AbsTask]:
    """The tasks that a run scores all models on; the recipe's `local` ones only with a folder of data."""
    data_dir = Path(settings.data_dir) if settings.data_dir else data_root
    names = [*settings.tasks, *(settings.local if data_dir is not None else [])]
    option = "--data-root (or data_dir: in the recipe)"
    return select_tasks(names, benchmark=settings.benchmark, data_dir=data_dir, option=option)


def wanted_tasks(
    names: Sequence[str],
    benchmark: str | None,
    types: Sequence[str] = (),
    languages: Sequence[str] = (),
    subsets: Sequence[str] = (),
) -> list[AbsTask]:
    """The tasks of `select_tasks` whose data is on the Hub, whether or not it is available here."""
    with quiet_libraries(hide_warnings=True):
        chosen = _chosen(names, benchmark, (types, languages, subsets), None).values()
        return [task for task in chosen if not _is_ours(task) and "/" in _dataset_path(task)]


def local_tasks(data_dir: Path) -> list[AbsTask]:
    """All tasks whose data is in `data_dir`. Raises SelfposError when there is none."""
    import mteb

    _check_folder(data_dir)
    with quiet_libraries(hide_warnings=True):
        task_of = {name: mteb.get_task(name) for name in MTEB_TASKS}
        available = [
            name
            for name in [*task_of, *OWN_TASKS]
            if not LocalFiles(name, data_dir, task_of.get(name)).missing()
        ]
        available += [
            task.metadata.name
            for task in mteb.get_tasks(modalities=["text"])
            if task.metadata.name not in available and local_data.hub_folder(task, data_dir)
        ]
    if not available:
        raise SelfposError(
            f"{data_dir} has the data of no task; expected folders such as stsbenchmark with test.jsonl, or "
            "what `selfpos fetch-data` downloads"
        )
    return select_tasks(available, data_dir=data_dir)


def offline() -> bool:
    """Whether the user forbade the use of the Hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _check_folder(data_dir: Path | None) -> None:
    if data_dir is not None and not data_dir.is_dir():
        found = "is a file" if data_dir.exists() else "is not there"
        raise SelfposError(
            f"{data_dir} {found}; expected a folder with MTEB's data, as `selfpos fetch-data FOLDER` makes it"
        )


def _dataset_path(task: AbsTask) -> str:
    return str(task.metadata.dataset["path"])


def _data_of(task: AbsTask) -> tuple[str, str]:
    return _dataset_path(task), str(task.metadata.dataset.get("revision", ""))


def _is_ours(task: AbsTask) -> bool:
    """Whether the task is one of selfpos or of the user, rather than MTEB's."""
    return _dataset_path(task).startswith(("selfpos/", "own/"))


Filters = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Types, languages and subsets that are asked for; empty for all."""


def _chosen(
    names: Sequence[str], benchmark: str | None, filters: Filters, data_dir: Path | None
) -> dict[str, AbsTask]:
    """Name → task. Our tasks on local data are placeholders without data."""
    import mteb

    types, languages, subsets = filters
    _check_filters(types, languages)
    tasks = [task for name in names for task in _named(name, data_dir)]
    if benchmark is not None:
        try:
            tasks += mteb.get_benchmark(benchmark).tasks
        except KeyError:
            benchmarks = [entry.name for entry in mteb.get_benchmarks()]
            raise unknown(
                "MTEB benchmark", benchmark, benchmarks, otherwise="`mteb available-benchmarks` lists them"
            ) from None
    if not names and benchmark is None:
        filtered = {"task_types": list(types) or None, "languages": list(languages) or None}
        tasks += mteb.get_tasks(**filtered, modalities=["text"])  # type: ignore[arg-type]
    chosen: dict[str, AbsTask] = {}
    for task in tasks:
        name = task.metadata.name
        if _data_of(chosen.setdefault(name, task)) != _data_of(task):
            raise SelfposError(f"two tasks are called {name}; give one of your own another name")
    present = {subset for task in chosen.values() for subset in task.hf_subsets or ()}
    for subset in subsets:
        if subset not in present:
            raise unknown(f"subset of {', '.join(list(chosen)[:5])}", subset, present, listed=True)
    selected = {name: task for name, task in chosen.items() if _fits(task, filters)}
    if chosen and not selected:
        wanted = zip(("type", "language", "subset"), filters, strict=True)
        asked = ", ".join(f"{kind} {' or '.join(names)}" for kind, names in wanted if names)
        named = ", ".join(f"{task.metadata.name} ({task.metadata.type})" for task in [*chosen.values()][:5])
        raise SelfposError(
            f"none of the tasks {named}{', …' if len(chosen) > 5 else ''} is of {asked}; name other tasks, "
            "or ask for less"
        )
    return selected


def _fits(task: AbsTask, filters: Filters) -> bool:
    """Whether the task is of the types, languages and subsets; its other subsets are removed."""
    types, languages, subsets = filters
    if types and str(task.metadata.type) not in types:
        return False
    if not languages and not subsets:
        return True
    # of a benchmark's task only the benchmark's subsets
    wanted = [subset for subset in task.hf_subsets or () if subset in subsets or not subsets]
    try:
        task.filter_languages(languages=list(languages) or None, hf_subsets=wanted)
    except ValueError:  # none is left
        return False
    return True


def _check_filters(types: Sequence[str], languages: Sequence[str]) -> None:
    from mteb.abstasks.task_metadata import TaskType
    from mteb.languages import ISO_TO_LANGUAGE

    for kind in types:
        if kind not in get_args(TaskType):
            raise unknown("MTEB task type", kind, get_args(TaskType))
    for language in languages:
        if language.partition("-")[0] not in ISO_TO_LANGUAGE:
            raise SelfposError(
                f"there is no language '{language}'; languages have three letters (ISO 639-3), such as eng, "
                "optionally with a script, such as eng-Latn"
            )


def _named(name: str, data_dir: Path | None) -> list[AbsTask]:
    """The tasks that a name stands for; those of `quick` are replaced where `data_dir` lacks their data."""
    import mteb

    if name == QUICK:
        tasks = []
        for quick, stand_in in QUICK_TASKS.items():
            without_data = (
                data_dir is not None and local_data.hub_folder(mteb.get_task(quick), data_dir) is None
            )
            tasks += _named(stand_in if stand_in and without_data else quick, data_dir)
        return tasks
    if name == CORPUS or name in corpus_tasks.LOADERS:
        tasks = corpus_tasks.corpus_tasks(load_corpus())
        return [task for task in tasks if name in (CORPUS, task.metadata.name)]
    if name in OWN_TASKS:
        return [local_data.own_task(name, dict, revision="")]  # replaced when the folder of data is known
    if name.endswith(task_files.SUFFIXES):
        return [task_files.load_task_file(Path(name))]
    try:
        return [mteb.get_task(name)]
    except KeyError:
        if (Path(name) / CONFIG).is_file() or (Path(name) / MODULES).is_file():
            raise SelfposError(
                f"{name} is a model: name models before --tasks, which takes all words up to the next option"
            ) from None
        if Path(name).exists():
            raise SelfposError(
                f"{name} is no declaration of a task; write one, a YAML file with name, type and files (see "
                "docs/data.md), and give that"
            ) from None
        tasks = [*mteb.get_tasks(exclude_superseded=False)]
        if of_data := next((task for task in tasks if _dataset_path(task) == name), None):
            raise SelfposError(
                f"there is no MTEB task named '{name}', which is the data of {of_data.metadata.name}; "
                "name that"
            ) from None
        names = [task.metadata.name for task in tasks] + [*OWN_TASKS, *corpus_tasks.LOADERS, CORPUS, QUICK]
        raise unknown(
            "MTEB task",
            name,
            names,
            otherwise=(
                "expected one that `mteb available-tasks` lists, quick, corpus, or a YAML file that "
                "declares a task of your own (see docs/data.md)"
            ),
        ) from None


def _with_data(chosen: dict[str, AbsTask], data_dir: Path | None, option: str) -> list[AbsTask]:
    """The tasks with their data. Raises SelfposError listing all data that is missing, or does not load."""
    located = {name: _located(name, task, data_dir) for name, task in chosen.items()}
    missing = {name: lacking for name, lacking in located.items() if isinstance(lacking, str)}
    if missing:
        of_mteb = not OWN_TASKS.keys() >= missing.keys()
        if data_dir is None:
            remedies = [f"give a folder that has it with {option}"]
            remedies += ["unset HF_HUB_OFFLINE to let mteb download that of MTEB's tasks"] * of_mteb
        else:
            remedies = ["put the files there" + " (`selfpos fetch-data` downloads those of MTEB's)" * of_mteb]
            remedies += [f"leave out {option} to let mteb download the data from the Hub"] * of_mteb
        raise SelfposError(
            f"data for {len(missing)} of {len(chosen)} tasks is missing or does not load "
            f"{'on this machine' if data_dir is None else f'in {data_dir}'}: "
            f"{'; '.join(f'{name} ({lacking})' for name, lacking in missing.items())}; "
            f"{', or '.join(remedies)}"
        )
    return [task for task in located.values() if not isinstance(task, str)]


def _located(name: str, task: AbsTask, data_dir: Path | None) -> AbsTask | str:
    """The task with its data, which in `data_dir` is in our layout or the Hub's; else what is missing."""
    is_local, path = name in OWN_TASKS, _dataset_path(task)
    if _is_ours(task) and not is_local:
        return task  # it has its data
    if data_dir is None:
        if is_local:
            files = LocalFiles(name, Path())
            return f"on files of yours alone, {files.place} with {files.example()}"
        return f"data set {path}" if offline() and not _downloaded(path) else task
    if is_local:
        return _first_that_loads(task, [LocalFiles(name, data_dir)], None)
    layouts = [LocalFiles(name, data_dir, task)] if name in MTEB_TASKS else []
    for folder in (name, path, path.rpartition("/")[2]):
        if local := local_data.set_in(folder, task):
            layouts.append(LocalFiles(name, data_dir, task, local))
    return _first_that_loads(task, layouts, local_data.hub_folder(task, data_dir))


def _first_that_loads(task: AbsTask, layouts: Sequence[LocalFiles], folder: Path | None) -> AbsTask | str:
    """The task on data in the first of our layouts, the Hub's in `folder`, or another of ours; else what
    lacks.
    """
    candidates = [layout.load_task() for layout in layouts[:1] if not layout.missing()]
    candidates += [local_data.hub_task(task, folder)] if folder is not None else []
    candidates += [layout.load_task() for layout in layouts[1:] if not layout.missing()]
    faults = []
    for candidate in candidates:
        fault = fault_of(candidate)
        if not fault:
            return with_mark(candidate)
        faults.append(fault)
    wanted = [f"{', '.join(first.missing()) or first.place}, with {first.example()}" for first in layouts[:1]]
    if not _is_ours(task):
        wanted.append(f"the Hub's files in {_dataset_path(task)}/")
    text = ", or ".join(wanted)
    if there := _subsets_there(task, folder, layouts):
        text += f"; there are the subsets {', '.join(there)}, which --subsets asks for alone"
    return f"its data does not load: {faults[0]}; expected {text}" if faults else text


def _subsets_there(task: AbsTask, folder: Path | None, layouts: Sequence[LocalFiles]) -> list[str]:
    """Those of several subsets of `task` that a partial copy of its data has."""
    subsets = list(task.hf_subsets or ())
    there = {subset for layout in layouts for subset in layout.subsets_there()}
    if folder is not None:
        paths = [file.relative_to(folder).as_posix() for file in local_data.data_files(folder)]
        there |= {
            subset
            for subset in subsets
            if any(re.search(rf"(^|[/_.]){re.escape(subset)}([/_.]|-test|$)", path) for path in paths)
        }
    return [subset for subset in subsets if subset in there] if len(subsets) > 1 else []


def _downloaded(path: str) -> bool:
    """Whether the Hub's cache on this machine has something of the data set `path`."""
    from datasets import config
    from huggingface_hub import constants

    folders = (
        Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}",
        Path(config.HF_DATASETS_CACHE) / path.replace("/", "___"),
    )
    return Path(path).exists() or any(folder.is_dir() for folder in folders)
