"""Whole operations: what verbs of the command line, jobs of a run and Python users call."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import selfpos.processes as processes
from selfpos.console import is_first, log
from selfpos.data.probe import ProbeTask, hold_out
from selfpos.data.report import describe_data, report_lines
from selfpos.data.sources import hash_records, load_task
from selfpos.errors import MemoryBudgetError, OperationError, SelfposError, stopped
from selfpos.merging import Plan, execute, plan
from selfpos.merging import merge as merge_folders
from selfpos.merging.output.provenance import describe
from selfpos.positioning.coefficients import Coefficients, read_coefficients, write_coefficients
from selfpos.positioning.separated import merge_method, separates
from selfpos.publishing.card import write_card
from selfpos.recipe import PositioningSettings, TaskSource, TrainingSettings, validate
from selfpos.statistics import check, gathered
from selfpos.storage.atomic import refuse_existing, write_text
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import locate_model
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_folder import open_model
from selfpos.tasks import TaskType, get_task
from selfpos.training import TrainingResult, train
from selfpos.training.models import check_base
from selfpos.training.negatives import mine
from selfpos.vectors import open_vectors
from selfpos.vectors.task_vector import distinct_names

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.positioning.position import Position

Sources = Sequence[str | Path]


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
        base: the base model: a folder or a name on the Hub.
        source: the task's type and data.
        out: the folder to write; it must not exist.
        settings: how to train.
        probe: records held out of the training data; `probe_of` draws them again.
        seed: of all random choices.
        say: called with each line about the data.

    Returns:
        Steps, samples, seconds and losses of the training.

    Raises:
        SelfposError: on bad input, or when `out` exists.
    """
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
        specialists: model folders that `finetune` wrote.

    Returns:
        Name of the task vector → its probe records.

    Raises:
        SelfposError: where a folder does not say what it was trained on, or its data has changed since.
    """
    probes: dict[str, Any] = {}
    for folder, name in zip(specialists, distinct_names(specialists), strict=True):
        provenance: Any = read_manifest(folder).get("finetune")
        known = isinstance(provenance, dict) and {"source", "hash", "probe", "seed"} <= provenance.keys()
        if not known or not provenance["probe"]:
            raise _no_probe(f"{folder} does not say which records were held out for a probe")
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
            raise _no_probe(f"the data of {folder} ({source.data}) has changed since it was trained")
        _, probe = hold_out(loaded.dataset, provenance["probe"], provenance["seed"])
        if provenance.get("held_out") not in (None, hash_records(probe)):
            raise _no_probe(
                f"other records were held out of the data of {folder} by the version that trained it"
            )
        probes[name] = ProbeTask(name, get_task(source.type), probe, source.prompts)
    return probes


def _no_probe(reason: str) -> SelfposError:
    return SelfposError(f"{reason}; give a probe set with --probe FOLDER")


def merge(
    base: str,
    vectors: Sources,
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
    planned, needed = _plan_with_probe(
        base, vectors, method, out, probe=probe, statistics_in=statistics_in, **options
    )
    with nullcontext(planned) if needed is None else gathered(planned, needed, statistics_in) as complete:
        execute(complete, finish=partial(_add_card, out))
    return out


def plan_merge(base: str, vectors: Sources, method: str, out: Path, **options: Any) -> list[tuple[str, str]]:
    """What `merge` with the same arguments would do, as rows of label and text; writes nothing."""
    return describe(_plan_with_probe(base, vectors, method, out, **options)[0])


def _plan_with_probe(
    base: str,
    vectors: Sources,
    method: str,
    out: Path,
    *,
    probe: Mapping[str, ProbeTask] | None = None,
    statistics_in: Path | None = None,
    **options: Any,
) -> tuple[Plan, Mapping[str, ProbeTask] | None]:
    """The plan of a merge and, where statistics must be gathered for it, a probe set that fits it."""
    folder, sources = _located(base, vectors)
    planned = plan(folder, sources, method, out, **options)
    if not planned.method.probe and (probe is not None or statistics_in is not None):
        raise SelfposError(f"method {method} uses no data: omit the probe set")
    if not planned.method.probe or planned.statistics:
        return planned, None
    tasks = probe_of(sources) if probe is None else probe
    check(planned, tasks)
    return planned, tasks


def _located(base: str, vectors: Sources) -> tuple[Path, list[Path]]:
    return locate_model(base), [locate_model(str(vector)) for vector in vectors]


def _add_card(out: Path, folder: Path) -> None:
    """Write the card of the merge at `out` into `folder`; a failing card must not cost the merge."""
    try:
        write_card(folder, out=out)
    except Exception as error:
        log.warning("%s has no card: %s: %s", out, type(error).__name__, error)
        log.info("where the card of %s failed", out, exc_info=True)


def position_and_merge(
    base: str,
    vectors: Sources,
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
        base: the base model: a folder or a name on the Hub.
        vectors: the models fine-tuned from `base`.
        probe: task name → its probe records.
        settings: objective and search.
        out: the folder to write; it must not exist.
        record: JSON file for the position.
        trajectory: JSON Lines file for the path of the search, written at its end.
        coefficients: file that `merge_by_coefficients` applies again.
        keep_interrupted: whether to merge the best point of an interrupted search.
        options: the fields of `selfpos.recipe.MergeOptions` without weights, params and provenance, checked
            before the search; `seed` is also the search's.

    Returns:
        The position.

    Raises:
        SelfposError: as `position` and `merge` do.
        KeyboardInterrupt: after Ctrl-C, where no point is better than the start, or without
            `keep_interrupted`.
    """
    from selfpos.positioning.position import position

    folder, sources = _located(base, vectors)
    planned, settings = _planned_search(folder, sources, settings, out, options)
    seed = options.get("seed", 0)
    states = out.parent / f".{out.name}.search"
    state = states / f"{_identity(planned.hashes, probe, settings, seed)}.pt"
    lines = state.with_suffix(".jsonl")  # of this search alone: others may have been stopped beside it
    try:
        files = {"trajectory": lines if trajectory else None, "state": state}
        device = options.get("device")
        result = position(folder, sources, probe, settings, seed=seed, device=device, **files)
        if result.interrupted and not keep_interrupted:
            raise KeyboardInterrupt
    except BaseException as error:
        if is_first():
            _forget(state, lines, error)
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
    parts = {name: {"type": task.type.name, "records": len(task.records)} for name, task in probe.items()}
    found_by = facts | {"settings": settings.model_dump(mode="json"), "probe": parts, "seed": seed}
    given = {**options, **result.merge_options, "provenance": {"positioning": found_by}}
    merge_folders(folder, sources, out=out, finish=partial(_add_card, out), **given)
    if coefficients is not None:
        base_hash, *hashes = planned.hashes
        values, tensors = result.coefficients, result.tensors
        content = Coefficients(
            result.names, hashes, values, tensors, planned.base_name, base_hash, found_by, result.separated
        )
        write_coefficients(coefficients, content)
    if trajectory is not None:
        write_text(trajectory, lines.read_text(encoding="utf-8"))
    shutil.rmtree(states, ignore_errors=True)
    return result


def plan_search(
    base: str, vectors: Sources, settings: PositioningSettings, out: Path, **options: Any
) -> list[tuple[str, str]]:
    """What `position_and_merge` would merge, as `plan_merge` says it; writes nothing."""
    return describe(_planned_search(*_located(base, vectors), settings, out, options)[0])


def _planned_search(
    base: Path, sources: Sequence[Path], settings: PositioningSettings, out: Path, options: dict[str, Any]
) -> tuple[Plan, PositioningSettings]:
    """The plan of the merge after a search, its coefficients not yet known, and the settings of the search
    with a decision whether the vectors are separated.
    """
    tolerate = options.get("take_from") is not None
    vectors = open_vectors(open_model(base), sources, tolerate=tolerate) if sources else []
    separate = bool(vectors) and options.get("output") != "adapter" and separates(vectors, settings)
    if separate:
        try:
            planned = plan(base, sources, out=out, **options, **merge_method(True))
        except MemoryBudgetError as error:
            if settings.separate:
                raise type(error)(f"{error}, or take the vectors as they are ('separate: false')") from None
            log.warning("the vectors are taken as they are, not separated: %s", error)
            separate = False
    if not separate:
        planned = plan(base, sources, "linear", out, **options)
    if settings.search == "linearised":
        settings = settings.model_copy(update={"separate": separate})
    return planned, settings


def _forget(state: Path, lines: Path, error: BaseException) -> None:
    """Remove what no search continues from: a state after bad input, lines without one, an empty folder."""
    # bad input stays bad; after a failure from outside the search may continue
    if isinstance(error, SelfposError) and not isinstance(error, OperationError):
        state.unlink(missing_ok=True)
    if not state.is_file():
        lines.unlink(missing_ok=True)
    with suppress(OSError):  # others may have been stopped beside it
        state.parent.rmdir()


def _identity(
    hashes: Sequence[str], probe: Mapping[str, ProbeTask], settings: PositioningSettings, seed: int
) -> str:
    """A hash of all that decides the path of a search, except the machine."""
    records = [
        [name, task.type.name, hash_records(task.records), task.prompts] for name, task in probe.items()
    ]
    facts = [hashes, records, settings.model_dump(mode="json"), seed]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def merge_by_coefficients(file: Path, base: str, vectors: Sources, out: Path, **options: Any) -> Path:
    """Merge by the coefficients that a search wrote.

    With the options that the search was given, the weights equal those that it wrote, byte for byte; those of
    separated vectors on the same kind of machine, for decompositions differ in their last digits.

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
    folder, sources, applied = _coefficients_applied(file, base, vectors, options)
    merge_folders(folder, sources, out=out, finish=partial(_add_card, out), **applied)
    return out


def plan_merge_by_coefficients(
    file: Path, base: str, vectors: Sources, out: Path, **options: Any
) -> list[tuple[str, str]]:
    """What `merge_by_coefficients` would do, as `plan_merge` says it; writes nothing."""
    folder, sources, applied = _coefficients_applied(file, base, vectors, options)
    return describe(plan(folder, sources, out=out, **applied))


def _coefficients_applied(
    file: Path, base: str, vectors: Sources, options: dict[str, Any]
) -> tuple[Path, list[Path], dict[str, Any]]:
    """Base, vectors in the file's order, and options of the merge that applies the coefficients."""
    searched = read_coefficients(file)
    folder, sources = _located(base, vectors)
    order = searched.order([content_hash(source) for source in sources], content_hash(folder), file)
    applied = {
        **options,
        "seed": searched.found_by.get("seed", options.get("seed", 0)),
        "weights": searched.weights,
        "names": searched.names,
        "base_name": searched.base_name,
        "provenance": {"positioning": searched.found_by},
        **merge_method(searched.separated),
    }
    return folder, [sources[index] for index in order], applied
