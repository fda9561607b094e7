"""Whole operations: what verbs of the command line, jobs of a run and Python users call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import selfpos.processes as processes
from selfpos.console import in_words, log, quiet_libraries
from selfpos.data.probe import ProbeTask, hold_out, probe_size, read_probe
from selfpos.data.report import describe_data, report_lines
from selfpos.data.sources import hash_records, load_task
from selfpos.data.texts import PlainTexts, read_texts
from selfpos.errors import SelfposError, unknown
from selfpos.merging import Plan, execute, plan
from selfpos.merging.forecast import seconds_of
from selfpos.merging.output.layout import code_of
from selfpos.merging.output.provenance import describe
from selfpos.merging.plan import check_base
from selfpos.publishing.card import write_card
from selfpos.recipe import PositioningSettings, TaskSource, TrainingSettings, validate
from selfpos.recipe.data import PROBE_RECORDS
from selfpos.statistics import check, gathered
from selfpos.storage.atomic import refuse_existing, refuse_within
from selfpos.storage.locate import locate_model
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_class import EMBEDDER, class_of
from selfpos.storage.model_folder import open_model
from selfpos.storage.run_folder import RunFolder
from selfpos.tasks import TaskType, get_task
from selfpos.tasks.texts import GENERAL, TEXTS
from selfpos.tasks.types.classes import for_class
from selfpos.training import TrainingResult, train
from selfpos.training.models import check_trainable, load_trainable, refuse_for, wanted_class
from selfpos.training.negatives import mine
from selfpos.vectors.check import side_prompt
from selfpos.vectors.task_vector import distinct_names

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.data.sources import LoadedSource


Sources = Sequence[str | Path]


def finetune(
    base: str | Path,
    source: TaskSource,
    out: str | Path,
    settings: TrainingSettings,
    *,
    model_type: str | None = None,
    probe: int = PROBE_RECORDS,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> TrainingResult:
    """Train a specialist on one task and write it as a model folder.

    Args:
        base: the base model: a folder or a name on the Hub.
        source: the task's type and data.
        out: the folder to write; it must not exist.
        settings: how to train.
        model_type: a name in `training.models.MODEL_TYPES`; what the base is when absent.
        probe: records held out of the training data, which `probe_of` draws again; a quarter of the data
            where it is more than half of it.
        seed: of all random choices.
        say: called with each line about the data.

    Returns:
        Steps, samples, seconds and losses of the training.

    Raises:
        SelfposError: on bad input, or when `out` exists.
    """
    out = Path(out)
    folder, task_type, loaded, report, training, held_out = _prepared(
        str(base), source, out, settings, model_type=model_type, probe=probe, seed=seed, say=say
    )
    provenance = {
        "source": source.model_dump(mode="json"), "hash": loaded.hash, "probe": len(held_out), "seed": seed
    }  # fmt: skip
    if len(held_out):
        provenance["held_out"] = hash_records(held_out)
    validation = None
    if settings.validation is not None and settings.validation.split is not None:
        split = load_task(source, seed=seed, split=settings.validation.split, task_type=task_type)
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


def check_finetune(
    base: str,
    source: TaskSource,
    out: Path,
    settings: TrainingSettings,
    *,
    model_type: str | None = None,
    probe: int = PROBE_RECORDS,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> None:
    """Refuse what `finetune` would, and what a merge or search would refuse of its base; writes nothing."""
    folder, task_type, _, _, training, held_out = _prepared(
        base, source, out, settings, model_type=model_type, probe=probe, seed=seed, say=say
    )
    with quiet_libraries():
        if task_type.model_class != EMBEDDER:
            load_trainable(folder, settings)
            say(f"the base is a {task_type.model_class}, and so will the specialist be")
        check_searches(folder)
    say(f"would train on {len(training)} records, and hold out {len(held_out)} for a probe")


def check_searches(base: Path) -> None:
    """Refuse what a search over `base` would refuse of it."""
    from selfpos.positioning.live import check_live

    check_live(open_model(base))


def _prepared(
    base: str,
    source: TaskSource,
    out: Path,
    settings: TrainingSettings,
    *,
    model_type: str | None,
    probe: int,
    seed: int,
    say: Callable[[str], object],
) -> tuple[Path, TaskType, LoadedSource, dict[str, Any], Dataset, Dataset]:
    """The base's folder, the type of task for it, the data and its statistics, records to train on and others
    held out.
    """
    refuse_existing(out)
    task_type = get_task(source.type)
    folder = locate_model(base)
    refuse_within(out, folder)
    task_type = for_class(task_type, wanted_class(folder, model_type))
    refuse_for(task_type.model_class, source, settings)
    # before its data is read, or mined with it
    check_trainable(folder, settings.max_length, task_type.model_class)
    code = code_of(check_base(folder, allow_code=True))
    if code:
        names = ", ".join(map(str, code))
        say(f"the base names Python code of its own ({names}): merges over it need --allow-code")
    processes.join(settings.device)
    with processes.first_before_others():  # a stream is written to the cache
        loaded = load_task(source, seed=seed, task_type=task_type)
    say(f"data: {loaded.description}")
    report = describe_data(loaded, task_type, folder)
    for line in report_lines(report):
        say(line)
    count = probe_size(probe, len(loaded.dataset))
    if count < probe:
        say(f"probe: {count} of {len(loaded.dataset)} records are held out, for {probe} are more than half")
    training, held_out = hold_out(loaded.dataset, count, seed)
    if count:
        _check_probe(task_type, held_out)
    return folder, task_type, loaded, report, training, held_out


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


def probe_of(specialists: Sources) -> dict[str, ProbeTask]:
    """The probe records that `finetune` held out for each specialist, drawn again from their sources, or that
    a run held out for its specialists.

    Args:
        specialists: model folders that `finetune` wrote, or those in `specialists/` of a run.

    Returns:
        Name of the task vector → its probe records.

    Raises:
        SelfposError: where a folder does not say what it was trained on, or its data has changed since.
    """
    probes: dict[str, Any] = {}
    folders = [Path(specialist) for specialist in specialists]
    for folder, name in zip(folders, distinct_names(folders), strict=True):
        if (of_run := _probe_of_run(folder)) is not None:
            probes[name] = replace(of_run, name=name)
            continue
        provenance: Any = read_manifest(folder).get("finetune")
        recorded = isinstance(provenance, dict) and {"source", "hash", "probe", "seed"} <= provenance.keys()
        if not recorded or not provenance["probe"]:
            raise _no_probe(f"{folder} does not say which records were held out for a probe")
        source = validate(TaskSource, provenance["source"], f"{folder}/selfpos.json")
        task_type = for_class(get_task(source.type), class_of(folder))
        try:
            loaded = load_task(source, seed=provenance["seed"], task_type=task_type)
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
        probes[name] = ProbeTask(name, task_type, probe, source.prompts)
    return probes


def _probe_of_run(specialist: Path) -> ProbeTask | None:
    """What the run held out for a specialist of it; None of a model that is no run's."""
    run = RunFolder(specialist.absolute().parent.parent)
    if specialist.absolute() != run.specialist(specialist.name).absolute() or not run.probe.is_dir():
        return None
    return read_probe(run.probe).get(specialist.name)


def texts_of(
    base: Path,
    specialists: Sequence[Path],
    sources: Mapping[str, str],
    *,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> dict[str, ProbeTask]:
    """Texts without labels for a search: of each vector, on which its specialist is the teacher, and general
    ones, on which the base is.

    Args:
        base: the base model's folder, whose prompt for documents goes before the texts.
        specialists: the models fine-tuned from it.
        sources: name of a task vector, or `general`, → its texts, as `read_texts` takes them. Without
            `general` the embedded corpus is taken.
        seed: of the draw where there are many texts.
        say: called with a line about each source.

    Returns:
        Name → its texts, as a probe set.

    Raises:
        SelfposError: a name is no vector's, a vector has no texts, or texts cannot be read.
    """
    names = distinct_names(specialists)
    for name in sources:
        if name not in (*names, GENERAL):
            raise unknown("vector", name, [*names, GENERAL])
    if missing := [name for name in names if name not in sources]:
        raise SelfposError(
            f"vector {missing[0]} has no texts: give --texts {missing[0]}=FILE with texts of its kind, or "
            "leave the vector out"
        )
    read: dict[str, PlainTexts] = {}
    prompt = side_prompt(open_model(base), "document")
    for name in (*names, GENERAL):
        # what the fine-tunes are to have learned is not to stay as it was
        source, taught = sources.get(name, "corpus"), set[str]()
        for other, texts in read.items() if name == GENERAL else ():
            taught.update(texts.texts if sources[other] == source else texts.source)
        try:
            read[name] = read_texts(source, seed=seed, without=taught)
        except SelfposError as error:
            raise type(error)(f"texts of {name}: {error}") from None
        why = "" if name in sources else f"; --texts {GENERAL}=FILE would give others"
        say(f"texts of {name}: {read[name].description}{why}")
    return {name: ProbeTask(name, TEXTS, read[name].dataset, prompt) for name in (GENERAL, *names)}


def _no_probe(reason: str) -> SelfposError:
    return SelfposError(f"{reason}; give a probe set with --probe FOLDER")


def merge(
    base: str | Path,
    vectors: Sources,
    method: str,
    out: str | Path,
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
    out = Path(out)
    planned, needed = _plan_with_probe(
        base, vectors, method, out, probe=probe, statistics_in=statistics_in, **options
    )
    with nullcontext(planned) if needed is None else gathered(planned, needed, statistics_in) as complete:
        execute(complete, finish=add_card)
    return out


def plan_merge(
    base: str | Path, vectors: Sources, method: str, out: Path, **options: Any
) -> list[tuple[str, str]]:
    """What `merge` with the same arguments would do, as rows of label and text; leaves nothing on disk."""
    planned, tasks = _plan_with_probe(base, vectors, method, out, **options)
    rows = describe(planned)
    if tasks is not None or planned.options.output == "adapter":
        return rows  # what gathering statistics or factoring takes is not known
    try:
        taken = f"about {in_words(seconds_of(planned))} after the start of the program"
    except OSError as error:
        taken = f"not known, for {planned.out.absolute().parent} cannot be written to: {error.strerror}"
    return [*rows, ("time", taken)]


def _plan_with_probe(
    base: str | Path,
    vectors: Sources,
    method: str,
    out: Path,
    *,
    probe: Mapping[str, ProbeTask] | None = None,
    statistics_in: Path | None = None,
    **options: Any,
) -> tuple[Plan, Mapping[str, ProbeTask] | None]:
    """The plan of a merge and, where statistics must be gathered for it, a probe set that fits it."""
    folder, sources = located(base, vectors)
    planned = plan(folder, sources, method, out, **options)
    if not planned.method.probe and (probe is not None or statistics_in is not None):
        raise SelfposError(f"method {method} uses no data: omit the probe set")
    if not planned.method.probe or planned.statistics:
        return planned, None
    from selfpos.positioning.position import probe_for  # needs torch, which other merges do not

    tasks = probe_for(folder, probe_of(sources) if probe is None else probe)
    check(planned, tasks)
    return planned, tasks


def located(base: str | Path, vectors: Sources) -> tuple[Path, list[Path]]:
    """The folders of a base and of its vectors."""
    return locate_model(str(base)), [locate_model(str(vector)) for vector in vectors]


def add_card(out: Path, folder: Path) -> None:
    """Write the card of the merge at `out` into `folder`; a failing card must not cost the merge."""
    try:
        write_card(folder, out=out)
    except Exception as error:
        log.warning("%s has no card: %s: %s", out, type(error).__name__, error)
        log.info("where the card of %s failed", out, exc_info=True)
