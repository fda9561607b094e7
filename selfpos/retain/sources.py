"""Where the domain's and the general tasks come from: labelled records, probe sets, plain texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.data import files
from selfpos.data.probe import FILE, ProbeTask, read_probe
from selfpos.data.sources import corpus_view, load_source
from selfpos.data.texts import read_texts
from selfpos.errors import SelfposError, nearest
from selfpos.retain.judging import RECORDS, JudgedTask, Taught, labelled, texts_in, without_texts
from selfpos.tasks import TASKS, get_task
from selfpos.tasks.task import SIDES, Prompts
from selfpos.tasks.texts import TEXTS
from selfpos.vectors.check import side_prompt

if TYPE_CHECKING:
    from selfpos.recipe import RetainSettings
    from selfpos.retain.judging import Side
    from selfpos.storage.model_folder import ModelFolder

FEWEST = 32  # records of a task: fewer tell no point from another
SPLITS = ("validation", "dev")  # of a folder, taken before the split it was trained on


def read_side(
    words: Sequence[str], base: ModelFolder, settings: RetainSettings, say: Callable[[str], object]
) -> dict[str, ProbeTask]:
    """The tasks that `words` name: `TYPE=DATA`, an MTEB task, a probe set, or plain texts (see `read_texts`).

    Args:
        words: as the user gave them.
        base: the model whose prompts go before the texts.
        settings: `data_dir` has the data of MTEB tasks, which come from the Hub without; `seed` is of draws.
        say: called with a line about each.

    Raises:
        SelfposError: data cannot be read, or has too few records.
    """
    tasks: dict[str, ProbeTask] = {}
    for word in words:
        found = _read(mteb_source(word, settings.data_dir) or word, base, settings.seed, say)
        for name, task in found.items():
            number = 1 + sum(taken.partition("#")[0] == name for taken in tasks)
            unique = name if number == 1 else f"{name}#{number}"
            if len(task.records) < FEWEST:
                raise SelfposError(
                    f"{word} gives {len(task.records)} records of {name}, and {FEWEST} are needed"
                )
            tasks[unique] = ProbeTask(unique, task.type, task.records, task.prompts)
    return tasks


def _read(word: str, base: ModelFolder, seed: int, say: Callable[[str], object]) -> dict[str, ProbeTask]:
    kind, equals, data = word.partition("=")
    if equals and kind in TASKS:
        split = SPLITS[0] if data.startswith("hub:") else _split(Path(data).expanduser())
        loaded = load_source(data, get_task(kind), split=split, limit=RECORDS, seed=seed)
        held = "" if split in SPLITS else " (not held out: give a file of records that nobody trained on)"
        say(f"{loaded.description}{held if Path(data).is_dir() else ''}")
        prompts: Prompts = side_prompt(base)
        if get_task(kind).asks:
            prompts = {side: side_prompt(base, side) for side in SIDES}
        return {_name(data): ProbeTask(_name(data), get_task(kind), loaded.dataset, prompts)}
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
    return {_name(word): ProbeTask(_name(word), TEXTS, read.dataset, side_prompt(base, "document"))}


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


def _split(path: Path) -> str:
    """The split to take: a validation split of a folder, if it has one."""
    for split in SPLITS if path.is_dir() else ():
        if files.find(path, split) or files.find(path / "qrels", split, (".tsv",)):
            return split
    return "train"


def _is_probe(path: Path) -> bool:
    if path.is_dir():
        return (path / FILE).is_file()
    if not path.name.endswith((".jsonl", ".jsonl.gz")) or not path.is_file():
        return False
    return all({"task", "type", "record"} <= record.keys() for record in islice(files.iter_records(path), 1))


def _name(data: str) -> str:
    """What to call a source: the folder of a split's file, else the file without its ending."""
    path = Path(data)
    stem = path.name.partition(".")[0] or path.name
    return path.parent.name if stem in ("train", "test", *SPLITS) and path.parent.name else stem


def apart(
    domain: dict[str, ProbeTask], general: Mapping[str, ProbeTask], say: Callable[[str], object]
) -> dict[str, ProbeTask]:
    """The general tasks without the records whose texts the domain has, too.

    Raises:
        SelfposError: too few records of a task are left.
    """
    known = texts_in(domain)
    kept = {}
    for name, task in general.items():
        kept[name], shared = without_texts(task, known)
        if len(kept[name].records) < FEWEST:
            raise SelfposError(
                f"{shared} of {len(task.records)} records of general task {name} are of the domain, too: "
                "give general data that is not of the domain"
            )
        if shared:
            say(f"general task {name} goes without {shared} records whose texts the domain has, too")
    return kept


def judged_tasks(
    domain: Mapping[str, ProbeTask], general: Mapping[str, ProbeTask], seed: int
) -> list[JudgedTask | Taught]:
    """The tasks that points are judged by. Names that both sides have are told apart."""
    named = {
        name: replace(task, name=f"general {name}") if name in domain else task
        for name, task in general.items()
    }
    sides: tuple[tuple[Side, Mapping[str, ProbeTask]], ...] = (("domain", domain), ("general", named))
    return [
        Taught.of(task, side) if task.type is TEXTS else labelled(task, side, seed)
        for side, tasks in sides
        for task in tasks.values()
    ]


def default_domain(tuned: Sequence[Path]) -> dict[str, ProbeTask]:
    """What `finetune` held out of each fine-tune's data, equal sets once."""
    from selfpos.data.sources import hash_records
    from selfpos.operations import probe_of

    try:
        probe = probe_of(tuned)
    except SelfposError as error:
        raise type(error)(
            f"{error}, or its domain with --domain: TYPE=FILE of records, or a file of plain texts"
        ) from None
    distinct = {hash_records(task.records): task for task in probe.values()}
    return {task.name: task for task in distinct.values()}
