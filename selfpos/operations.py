"""Whole operations: what verbs of the command line, jobs of a run and Python users call."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import is_first, log
from selfpos.errors import OperationError, SelfposError, stopped
from selfpos.recipe import PositioningSettings, TaskSource, TrainingSettings, validate

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.probe import ProbeTask
    from selfpos.merging.plan import Plan
    from selfpos.positioning.position import Position
    from selfpos.tasks import TaskType
    from selfpos.training import TrainingResult


def finetune(
    base: str,
    source: TaskSource,
    out: Path,
    settings: TrainingSettings,
    *,
    probe: int = 256,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> TrainingResult:
    """Train a specialist on one task and write it as a model folder.

    Args:
        base: Model folder or name on the Hub.
        source: The task's type and data.
        out: Folder to write; must not exist.
        settings: How to train.
        probe: Records held out of the training data; `probe_of` draws them again.
        seed: Of all random choices.
        say: Called with each line about the data.

    Returns:
        Steps, samples, seconds and losses of the training.

    Raises:
        SelfposError: On bad input, or when `out` exists.
    """
    import selfpos.processes as processes
    from selfpos.data.probe import hold_out
    from selfpos.data.report import describe_data, report_lines
    from selfpos.data.sources import hash_records, load_task
    from selfpos.storage.atomic import refuse_existing
    from selfpos.storage.locate import locate_model
    from selfpos.tasks import get_task
    from selfpos.training import train
    from selfpos.training.models import check_base
    from selfpos.training.negatives import mine

    refuse_existing(out)
    task_type = get_task(source.type)
    folder = locate_model(base)
    check_base(folder)  # before its data is read, or mined with it
    processes.join(settings.device)
    with processes.first_before_others():  # a stream is written to the cache
        loaded = load_task(source, seed=seed)
    say(f"data: {loaded.description}")
    report = describe_data(loaded, task_type, folder)
    for line in report_lines(report):
        say(line)
    training, held_out = hold_out(loaded.dataset, probe, seed)
    provenance = {"source": source.model_dump(mode="json"), "hash": loaded.hash, "probe": probe, "seed": seed}
    if probe:
        _check_probe(task_type, held_out)
        provenance["held_out"] = hash_records(held_out)
    validation = None
    if settings.validation is not None and settings.validation.split is not None:
        split = load_task(source, seed=seed, split=settings.validation.split)
        validation = {source.type: split.dataset}
    if source.mine is not None:
        with processes.first_before_others():
            training = mine(training, task_type.under(settings), source.mine, folder, source.prompts, seed)
    return train(
        folder,
        {source.type: (task_type, training)},
        out,
        settings,
        seed=seed,
        name=out.name,
        validation=validation,
        prompts={source.type: source.prompts},
        provenance={"finetune": provenance, "data": {source.type: report}},
    )


def _check_probe(task_type: TaskType, records: Dataset) -> None:
    """Refuse probe records from which no batch can be drawn: better before the training than after."""
    import torch

    batch_size = min(PositioningSettings().batch_size, len(records))
    try:
        task_type.draw(task_type.prepare(records, seed=0), batch_size, torch.Generator().manual_seed(0))
    except SelfposError as error:
        raise SelfposError(
            f"no batch can be drawn from the {len(records)} records held out for a probe: {error}; "
            "give --probe more of them, or --probe 0 to hold out none"
        ) from None


def probe_of(specialists: Sequence[Path]) -> dict[str, ProbeTask]:
    """The probe records that `finetune` held out for each specialist, drawn again from their sources.

    Args:
        specialists: Model folders that `finetune` wrote.

    Returns:
        Name of the task vector → its probe records.

    Raises:
        SelfposError: When a folder does not say what it was trained on, its data has changed since, or other
            records would be drawn now.
    """
    from selfpos.data.probe import ProbeTask, hold_out
    from selfpos.data.sources import hash_records, load_task
    from selfpos.storage.manifest import read_manifest
    from selfpos.tasks import get_task
    from selfpos.vectors.task_vector import distinct_names

    probes: dict[str, Any] = {}
    for folder, name in zip(specialists, distinct_names(specialists), strict=True):
        provenance: Any = (read_manifest(folder) or {}).get("finetune")
        known = isinstance(provenance, dict) and {"source", "hash", "probe", "seed"} <= provenance.keys()
        if not known or not provenance["probe"]:
            raise SelfposError(
                f"{folder} does not say which records were held out for a probe; "
                "give the probe set with --probe FOLDER"
            )
        source = validate(TaskSource, provenance["source"], f"{folder}/selfpos.json")
        try:
            loaded = load_task(source, seed=provenance["seed"])
        except SelfposError as error:
            raise type(error)(
                f"the probe of {folder} is drawn from the data it was trained on, which cannot be read: "
                f"{error}; start in the folder that it was trained in, "
                "or give a probe set with --probe FOLDER"
            ) from None
        if loaded.hash != provenance["hash"]:
            raise SelfposError(
                f"the data of {folder} ({source.data}) has changed since it was trained; "
                "give a probe set with --probe FOLDER"
            )
        _, probe = hold_out(loaded.dataset, provenance["probe"], provenance["seed"])
        drawn = hash_records(probe)
        if provenance.get("held_out", drawn) != drawn:
            raise SelfposError(
                f"other records were held out of the data of {folder} by the version that trained it; "
                "give a probe set with --probe FOLDER"
            )
        probes[name] = ProbeTask(name, get_task(source.type), probe, source.prompts)
    return probes


def merge(
    base: str,
    vectors: Sequence[str | Path],
    method: str,
    out: Path,
    *,
    probe: Mapping[str, ProbeTask] | None = None,
    statistics_in: Path | None = None,
    **options: Any,
) -> Path:
    """Merge models fine-tuned from one base, with a card.

    Args:
        base: the base model: a folder or a name on the Hub.
        vectors: the fine-tuned models: folders, Hub names, or PEFT adapters.
        method: a method of `selfpos methods`.
        out: the folder to write; it must not exist.
        probe: for methods that need a probe set; its tasks are named as the vectors. Default: drawn by
            `probe_of`.
        statistics_in: a folder where what such methods gather is kept for later merges.
        options: the fields of `selfpos.recipe.MergeOptions`: weights, params, dtype, seed and others.

    Returns:
        `out`.

    Raises:
        SelfposError: the models do not fit together, a method, parameter or option is wrong, or `out` exists.
    """
    from selfpos.merging import execute
    from selfpos.statistics import gathered

    plan, needed = _plan_with_probe(base, vectors, method, out, probe, statistics_in, options)
    with nullcontext(plan) if needed is None else gathered(plan, needed, statistics_in) as complete:
        execute(complete, finish=partial(_add_card, out))
    return out


def plan_merge(
    base: str,
    vectors: Sequence[str | Path],
    method: str,
    out: Path,
    *,
    probe: Mapping[str, ProbeTask] | None = None,
    statistics_in: Path | None = None,
    **options: Any,
) -> list[tuple[str, str]]:
    """What `merge` with the same arguments would do, as rows of label and text; writes nothing."""
    from selfpos.merging.describe import describe

    return describe(_plan_with_probe(base, vectors, method, out, probe, statistics_in, options)[0])


def _plan_with_probe(
    base: str,
    vectors: Sequence[str | Path],
    method: str,
    out: Path,
    probe: Mapping[str, ProbeTask] | None,
    statistics_in: Path | None,
    options: dict[str, Any],
) -> tuple[Plan, Mapping[str, ProbeTask] | None]:
    """The plan of a merge and, where statistics must be gathered for it, a probe set that fits it."""
    from selfpos.merging import plan
    from selfpos.statistics import check
    from selfpos.storage.locate import locate_model

    sources = [locate_model(str(vector)) for vector in vectors]
    planned = plan(locate_model(base), sources, method, out, **options)
    if not planned.method.probe and (probe is not None or statistics_in is not None):
        raise SelfposError(f"method {method} uses no data: omit the probe set")
    if not planned.method.probe or planned.statistics:
        return planned, None
    tasks = probe_of(sources) if probe is None else probe
    check(planned, tasks)
    return planned, tasks


def _add_card(out: Path, folder: Path) -> None:
    """Write the card of the merge at `out` into `folder`; a failing card must not cost the merge."""
    from selfpos.publishing.card import write_card

    try:
        write_card(folder, place=out)
    except Exception as error:
        log.warning("%s has no card: %s: %s", out, type(error).__name__, error)
        log.info("where the card of %s failed", out, exc_info=True)


def position_and_merge(
    base: str,
    vectors: Sequence[str | Path],
    probe: Mapping[str, ProbeTask],
    settings: PositioningSettings,
    out: Path,
    *,
    record: Path | None = None,
    trajectory: Path | None = None,
    coefficients: Path | None = None,
    keep_interrupted: bool = True,
    **options: Any,
) -> Position:
    """Learn the coefficients of task vectors on a probe set, and write the merged model with a card.

    A killed search continues when it is started again with the same arguments. A search that Ctrl-C ended is
    merged with the best point so far. Of several processes that a launcher has started, the first alone
    merges and writes.

    Args:
        base: Model folder or name on the Hub. vectors: Models fine-tuned from `base`. probe: Task name → its
            probe records. settings: Objective and search. out: Folder to write; must not exist. record: JSON
            file for the position. trajectory: JSON Lines file for the path of the search, written at its end.
            coefficients: File that `merge_by_coefficients` applies again. keep_interrupted: Whether to merge
            the best point of an interrupted search. options: Those of `merging.plan` without weights, params
            and provenance; `seed` is also the search's. They are checked before the search.

    Returns:
        The position.

    Raises:
        SelfposError: As `position` and `merge` do. KeyboardInterrupt: After Ctrl-C, where no point is better
        than the start, or without `keep_interrupted`.
    """
    from selfpos.merging import merge as merge_folders
    from selfpos.merging import plan
    from selfpos.positioning.coefficients import Coefficients, write_coefficients
    from selfpos.positioning.position import position
    from selfpos.storage.atomic import write_text
    from selfpos.storage.locate import locate_model

    folder, sources = locate_model(base), [locate_model(str(vector)) for vector in vectors]
    planned = plan(folder, sources, "linear", out, **options)
    seed = options.get("seed", 0)
    states = out.parent / f".{out.name}.search"
    state = states / f"{_identity(planned.hashes, probe, settings, seed)}.pt"
    lines = state.with_suffix(".jsonl")  # of this search alone: others may have been stopped beside it
    try:
        result = position(
            folder,
            sources,
            probe,
            settings,
            seed=seed,
            trajectory=lines if trajectory else None,
            state=state,
            device=options.get("device"),
        )
        if result.interrupted and not keep_interrupted:
            raise KeyboardInterrupt
    except BaseException as error:
        if is_first():
            # bad input stays bad, so its search never continues; after a failure from outside it may
            _forget(
                state, lines, final=isinstance(error, SelfposError) and not isinstance(error, OperationError)
            )
        if isinstance(error, KeyboardInterrupt) and state.is_file():
            raise stopped("the search so far") from None
        raise
    if not is_first():
        return result
    facts = {key: value for key, value in asdict(result).items() if value is not None}
    for file in filter(None, (record, trajectory, coefficients)):
        file.parent.mkdir(parents=True, exist_ok=True)
    if record is not None:
        write_text(record, json.dumps(facts, indent=1))
    found_by = facts | {
        "settings": settings.model_dump(mode="json"),
        "probe": {
            name: {"type": task.type.name, "records": len(task.records)} for name, task in probe.items()
        },
        "seed": seed,
    }
    given = {**options, "weights": result.weights, "provenance": {"positioning": found_by}}
    merge_folders(folder, sources, "linear", out, finish=partial(_add_card, out), **given)
    if coefficients is not None:
        base_hash, *hashes = planned.hashes
        values, tensors = result.coefficients, result.tensors
        content = Coefficients(result.names, hashes, values, tensors, planned.base_name, base_hash, found_by)
        write_coefficients(coefficients, content)
    if trajectory is not None:
        write_text(trajectory, lines.read_text(encoding="utf-8"))
    shutil.rmtree(states, ignore_errors=True)
    return result


def _forget(state: Path, lines: Path, *, final: bool) -> None:
    """Remove the `state` of a search that never continues (`final`), lines without state, empty folders."""
    if final:
        state.unlink(missing_ok=True)
    if not state.is_file():
        lines.unlink(missing_ok=True)
    if state.parent.is_dir() and not any(state.parent.iterdir()):
        state.parent.rmdir()


def _identity(
    hashes: Sequence[str], probe: Mapping[str, ProbeTask], settings: PositioningSettings, seed: int
) -> str:
    """A hash of all that decides the path of a search, except the machine."""
    from selfpos.data.sources import hash_records

    records = [
        [name, task.type.name, hash_records(task.records), task.prompts] for name, task in probe.items()
    ]
    facts = [hashes, records, settings.model_dump(mode="json"), seed]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def merge_by_coefficients(
    file: Path, base: str, vectors: Sequence[str | Path], out: Path, **options: Any
) -> Path:
    """Merge by the coefficients that a search wrote.

    With the options that the search was given, the weights equal those that it wrote, byte for byte.

    Args:
        file: the coefficients (`OUT.coefficients.json`).
        base: the base model: a folder or a name on the Hub.
        vectors: the vectors of the search, in any order.
        out: the folder to write; it must not exist.
        options: the fields of `selfpos.recipe.MergeOptions`.

    Returns:
        `out`.

    Raises:
        SelfposError: base or vectors are not those of the file by their content; and as `merge`.
    """
    from selfpos.merging import merge as merge_folders

    folder, sources, applied = _coefficients_applied(file, base, vectors, options)
    merge_folders(folder, sources, "linear", out, finish=partial(_add_card, out), **applied)
    return out


def plan_merge_by_coefficients(
    file: Path, base: str, vectors: Sequence[str | Path], out: Path, **options: Any
) -> list[tuple[str, str]]:
    """What `merge_by_coefficients` would do, as `plan_merge` says it; writes nothing."""
    from selfpos.merging import plan
    from selfpos.merging.describe import describe

    folder, sources, applied = _coefficients_applied(file, base, vectors, options)
    return describe(plan(folder, sources, "linear", out, **applied))


def _coefficients_applied(
    file: Path, base: str, vectors: Sequence[str | Path], options: dict[str, Any]
) -> tuple[Path, list[Path], dict[str, Any]]:
    """Base, vectors in the file's order, and options of the merge that applies the coefficients."""
    from selfpos.positioning.coefficients import read_coefficients
    from selfpos.storage.hashing import content_hash
    from selfpos.storage.locate import locate_model

    found = read_coefficients(file)
    folder, sources = locate_model(base), [locate_model(str(vector)) for vector in vectors]
    order = found.order([content_hash(source) for source in sources], content_hash(folder), file)
    applied = {
        **options,
        "seed": found.found_by.get("seed", options.get("seed", 0)),
        "weights": found.weights,
        "names": found.names,
        "base_name": found.base_name,
        "provenance": {"positioning": found.found_by},
    }
    return folder, [sources[index] for index in order], applied
