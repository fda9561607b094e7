"""Merges whose coefficients are searched for, whole: plan, search, merge, and merge again by the result."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import in_words, is_first, log
from selfpos.data.probe import ProbeTask
from selfpos.data.sources import hash_records
from selfpos.errors import MemoryBudgetError, OperationError, SelfposError, stopped
from selfpos.merging import Plan, plan
from selfpos.merging import merge as merge_folders
from selfpos.merging.output.modules import check_measured_pooling
from selfpos.merging.output.provenance import describe
from selfpos.operations import Sources, add_card, located
from selfpos.positioning.coefficients import Coefficients, read_coefficients, write_coefficients
from selfpos.positioning.separated import merge_method, separates
from selfpos.recipe import PositioningSettings
from selfpos.storage.atomic import write_text
from selfpos.storage.hashing import content_hash
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors

if TYPE_CHECKING:
    from selfpos.positioning.position import Position


def position_and_merge(
    base: str | Path,
    vectors: Sources,
    probe: Mapping[str, ProbeTask],
    settings: PositioningSettings,
    out: str | Path,
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

    out = Path(out)
    folder, sources = located(base, vectors)
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
    merge_options = {**options, **result.merge_options, "provenance": {"positioning": found_by}}
    with _search_kept():
        merge_folders(folder, sources, out=out, finish=add_card, **merge_options)
    if coefficients is not None:
        base_hash, *hashes = planned.hashes
        values, tensors = result.coefficients, result.tensors
        method = merge_method(result.separated)
        content = Coefficients(
            result.names, hashes, values, tensors, planned.base_name, base_hash, found_by, method
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
    return describe(_planned_search(*located(base, vectors), settings, out, options)[0])


def forecast_row(
    base: str, vectors: Sources, probe: Mapping[str, ProbeTask], settings: PositioningSettings, **options: Any
) -> tuple[str, str]:
    """Label and text: how long the linearised search of `position_and_merge` takes, and in what memory.

    Raises SelfposError where the search would be refused.
    """
    from selfpos.positioning.forecast import forecast

    device = options.get("device")
    expected = forecast(*located(base, vectors), probe, settings, seed=options.get("seed", 0), device=device)
    least, most = (in_words(count * expected.seconds) for count in (expected.fewest, expected.most))
    passes = f"{expected.texts:,} texts, embedded at {expected.fewest} to {expected.most} points"
    taken = f"about {least} to {most}, beside separating the vectors and merging them"
    return "search", f"{passes}: {taken}; about {expected.memory / 2**20:,.0f} MB beyond the runtime"


def _planned_search(
    base: Path, sources: Sequence[Path], settings: PositioningSettings, out: Path, options: dict[str, Any]
) -> tuple[Plan, PositioningSettings]:
    """The plan of the merge after a search, its coefficients not yet known, and the settings of the search
    with a decision whether the vectors are separated.
    """
    tolerate = options.get("take_from") is not None
    opened = open_model(base)
    check_measured_pooling(opened, options.get("pooling"))
    vectors = open_vectors(opened, sources, tolerate=tolerate) if sources else []
    separate = bool(vectors) and options.get("output") != "adapter" and separates(vectors, settings)
    if separate:
        try:
            planned = plan(base, sources, out=out, **options, **merge_method(True))
        except MemoryBudgetError as error:
            if settings.separate:
                way_out = "or take the vectors as they are ('separate: false')"
                raise MemoryBudgetError(f"{error}, {way_out}") from None
            log.warning("the vectors are taken as they are, not separated: %s", error)
            separate = False
    if not separate:
        planned = plan(base, sources, "linear", out, **options)
    if settings.search == "linearised":
        settings = settings.model_copy(update={"separate": separate})
    return planned, settings


@contextmanager
def _search_kept() -> Iterator[None]:
    """A block whose failure does not lose the search before it."""
    try:
        yield
    except OperationError as error:
        raise OperationError(
            f"{error}, but the search is kept; start the same command again to continue it"
        ) from None


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


def merge_by_coefficients(
    file: str | Path, base: str | Path, vectors: Sources, out: str | Path, **options: Any
) -> Path:
    """Merge by the coefficients that a search wrote.

    With the options that the search was given, the weights equal those that it wrote, byte for byte; those of
    separated vectors on the same kind of machine, for inverses differ in their last digits.

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
    out = Path(out)
    folder, sources, applied = _coefficients_applied(Path(file), base, vectors, options)
    merge_folders(folder, sources, out=out, finish=add_card, **applied)
    return out


def plan_merge_by_coefficients(
    file: Path, base: str, vectors: Sources, out: Path, **options: Any
) -> list[tuple[str, str]]:
    """What `merge_by_coefficients` would do, as `plan_merge` says it; writes nothing."""
    folder, sources, applied = _coefficients_applied(file, base, vectors, options)
    return describe(plan(folder, sources, out=out, **applied))


def _coefficients_applied(
    file: Path, base: str | Path, vectors: Sources, options: dict[str, Any]
) -> tuple[Path, list[Path], dict[str, Any]]:
    """Base, vectors in the file's order, and options of the merge that applies the coefficients."""
    searched = read_coefficients(file)
    folder, sources = located(base, vectors)
    order = searched.order([content_hash(source) for source in sources], content_hash(folder), file)
    applied = {**options, "names": searched.names, "base_name": searched.base_name, **searched.merge_options}
    return folder, [sources[index] for index in order], applied
