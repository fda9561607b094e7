"""Where the domain's and the general tasks come from: labelled records, probe sets, plain texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.data import files
from selfpos.data.beir import beir_files
from selfpos.data.folders import split_files
from selfpos.data.names import source_name, unique_name
from selfpos.data.probe import FILE, ProbeTask, read_probe
from selfpos.data.sources import corpus_view, load_source
from selfpos.data.texts import read_texts
from selfpos.errors import SelfposError, nearest
from selfpos.retention.judging import RECORDS, JudgedTask, PlainTask, labelled, texts_in, without_texts
from selfpos.storage.model_class import similarity_of
from selfpos.tasks import TASKS, get_task
from selfpos.tasks.task import ANOTHER, SIDES, Prompts
from selfpos.tasks.texts import TEXTS
from selfpos.vectors.check import side_prompt

if TYPE_CHECKING:
    from selfpos.recipe import RetainSettings
    from selfpos.retention.judging import Side
    from selfpos.storage.model_folder import ModelFolder

FEWEST = 32  # records of a task: fewer tell no point from another
HELD_OUT = "validation"  # the split that is taken before the one models are trained on


def read_sides(
    base: ModelFolder,
    settings: RetainSettings,
    held_out: Callable[[], dict[str, ProbeTask]],
    say: Callable[[str], object],
) -> list[JudgedTask | PlainTask]:
    """The tasks of both sides that `settings` name, told apart; without a domain, what was `held_out` is it.

    Raises:
        SelfposError: data cannot be read, has too few records, or the base's index is to be kept and the
            domain asks no questions.
    """
    say("domain:")
    if settings.domain:
        domain = read_side("domain", settings.domain, base, settings, say)
    else:
        domain = held_out()
        say(", ".join(f"{name}: {len(task.records)} records held out" for name, task in domain.items()))
        for task in domain.values():
            _check_count("what was held out", task)
    say("general:" if settings.general else "general (no --general was given):")
    general = read_side("general", settings.general or ["corpus"], base, settings, say)
    if settings.index == "base" and not any(task.type.asks for task in domain.values()):
        raise SelfposError(
            "--index base needs a domain of questions and documents (a task type such as retrieval), and no "
            "domain task has them; give such records with --domain"
        )
    similarity = similarity_of(base.path)
    return judged_tasks(domain, apart(domain, general, say), settings.seed_of_draws, similarity)


def _check_count(source: str, task: ProbeTask) -> None:
    if len(task.records) < FEWEST:
        raise SelfposError(
            f"{source} gives {len(task.records)} records for task {task.name}, and {FEWEST} are needed: "
            "give more"
        )


def read_side(
    side: Side,
    words: Sequence[str],
    base: ModelFolder,
    settings: RetainSettings,
    say: Callable[[str], object],
) -> dict[str, ProbeTask]:
    """The tasks that `words` name: `TYPE=DATA`, an MTEB task, a probe set, or plain texts (see `read_texts`).

    Args:
        side: that they are of: what was learned should not be measured on what was trained on.
        words: as the user gave them.
        base: the model whose prompts go before the texts.
        settings: `data_dir` has the data of MTEB tasks, which come from the Hub without; `seed` is of draws.
        say: called with a line about each.

    Raises:
        SelfposError: data cannot be read, or has too few records.
    """
    tasks: dict[str, ProbeTask] = {}
    for word in words:
        source = mteb_source(word, settings.data_dir)
        tasks_of_word = _read(side, source or word, base, settings.seed_of_draws, say)
        for kept, task in tasks_of_word.items():
            unique = unique_name(word if source else kept, tasks)
            _check_count(word, task)
            tasks[unique] = ProbeTask(unique, task.type, task.records, task.prompts)
    return tasks


def _read(
    side: Side, word: str, base: ModelFolder, seed: int, say: Callable[[str], object]
) -> dict[str, ProbeTask]:
    kind, equals, data = word.partition("=")
    if equals and kind in TASKS:
        folder = Path(data).expanduser()
        elsewhere = data.startswith("hub:") or corpus_view(data) is not None
        split = HELD_OUT if elsewhere or _has_validation(folder) else "train"
        try:
            if not data:
                raise SelfposError(f"'{word}' names no data: give {kind}=FILE")
            loaded = load_source(
                data, get_task(kind), split=split, limit=RECORDS, seed=seed, duplicates="drop"
            )
        except SelfposError as error:
            fault, other_name, _ = str(error).partition(ANOTHER)
            raise type(error)(fault + (other_name and "; rename one in the data")) from None
        trained_on = side == "domain" and split != HELD_OUT and folder.is_dir()
        warning = " (not held out: give a file of records that nobody trained on)" if trained_on else ""
        say(f"{loaded.description}{warning}")
        prompts: Prompts = side_prompt(base)
        if get_task(kind).asks:
            prompts = {asked_side: side_prompt(base, asked_side) for asked_side in SIDES}
        name = source_name(data)
        return {name: ProbeTask(name, get_task(kind), loaded.dataset, prompts)}
    path = Path(word).expanduser()
    if _is_probe(path):
        probe = read_probe(path)
        say(f"{word}: {', '.join(f'{name} ({len(task.records)} records)' for name, task in probe.items())}")
        return probe
    if not path.exists() and corpus_view(word) != "":
        hint = nearest(kind, TASKS) if equals else ""
        raise SelfposError(
            f"'{word}' is no file or folder of texts, no probe set, no MTEB task and not TYPE=DATA with a "
            f"type of `selfpos tasks`, such as sts=stsb/validation.jsonl{hint}"
        )
    read = read_texts(word, seed=seed, most=RECORDS, fewest=FEWEST)
    say(read.description)
    name = source_name(word)
    return {name: ProbeTask(name, TEXTS, read.dataset, side_prompt(base, "document"))}


def mteb_source(name: str, data_dir: Path | None) -> str | None:
    """`TYPE=DATA` of the MTEB task `name`, in `data_dir` or on the Hub; None where there is no such task."""
    if not re.fullmatch(r"[A-Z][\w.()-]*|selfpos-\w+", name) or Path(name).exists():
        return None
    import mteb

    from selfpos.evaluation.local_data import MTEB_TASKS, OWN_TASKS
    from selfpos.evaluation.tasks import KINDS

    local = MTEB_TASKS.get(name) or OWN_TASKS.get(name)
    if data_dir is not None and local is not None:
        return f"{local.kind}={data_dir / next(iter(local.subsets.values()))}"
    try:
        metadata = mteb.get_task(name).metadata
    except KeyError:
        return None
    kinds = {mteb_type: kind for kind, (_, mteb_type, _, _) in KINDS.items()}
    if metadata.type not in kinds:
        raise SelfposError(f"MTEB task {name} is of type {metadata.type}, which tells no points apart here")
    return f"{kinds[metadata.type]}=hub:{metadata.dataset['path']}@{metadata.dataset['revision']}"


def _has_validation(path: Path) -> bool:
    """Whether `path` is a folder with a validation split, by any of its names."""
    if not path.is_dir():
        return False
    return all(beir_files(path, HELD_OUT).values()) or bool(split_files(path, HELD_OUT))


def _is_probe(path: Path) -> bool:
    if path.is_dir():
        return (path / FILE).is_file()
    if not path.name.endswith((".jsonl", ".jsonl.gz")) or not path.is_file():
        return False
    return all({"task", "type", "record"} <= record.keys() for record in islice(files.iter_records(path), 1))


def apart(
    domain: dict[str, ProbeTask], general: Mapping[str, ProbeTask], say: Callable[[str], object]
) -> dict[str, ProbeTask]:
    """The general tasks without the records whose texts the domain has, too.

    Raises:
        SelfposError: too few records of a task are left.
    """
    domain_texts = texts_in(domain)
    kept = {}
    for name, task in general.items():
        kept[name], shared = without_texts(task, domain_texts)
        if len(kept[name].records) < FEWEST:
            raise SelfposError(
                f"{shared} of {len(task.records)} records of general task {name} are of the domain, too: "
                "give general data that is not of the domain"
            )
        if shared:
            say(f"general task {name} goes without {shared} records whose texts the domain has, too")
    return kept


def judged_tasks(
    domain: Mapping[str, ProbeTask], general: Mapping[str, ProbeTask], seed: int, similarity: str = "cosine"
) -> list[JudgedTask | PlainTask]:
    """The tasks that points are judged by. Names that both sides have are told apart.

    Embeddings are compared by `similarity`, the model's `similarity_fn_name`.
    """
    named = {
        name: replace(task, name=f"general {name}") if name in domain else task
        for name, task in general.items()
    }
    sides: tuple[tuple[Side, Mapping[str, ProbeTask]], ...] = (("domain", domain), ("general", named))
    return [_judged(task, side, seed, similarity) for side, tasks in sides for task in tasks.values()]


def _judged(task: ProbeTask, side: Side, seed: int, similarity: str) -> JudgedTask | PlainTask:
    if task.type is TEXTS:
        return PlainTask.of(task, side, similarity)
    try:
        return labelled(task, side, seed, similarity)
    except SelfposError as error:
        raise type(error)(f"{side} task {task.name}: {error}") from None
