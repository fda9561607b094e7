"""From a plan that needs data statistics, and a probe set, to the plan with them: gathered task by task, each file kept once it is whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import log, progress
from selfpos.errors import OperationError, SelfposError, nearest
from selfpos.recipe import PositioningSettings
from selfpos.storage.atomic import locked

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.merging import Plan
    from selfpos.positioning.objective import Batch, TaskProbe

VERSION = 1
"""Of what the files hold: another definition makes old ones useless."""


@dataclass(frozen=True)
class Wanted:
    """One statistic of the vector at `place` in the plan, from `pieces` of its task. `file` is named by the hash of all that decides it."""

    statistic: str
    place: int
    task: TaskProbe
    pieces: list[Batch]
    fingerprint: str
    file: Path


@contextmanager
def gathered(plan: Plan, probe: Mapping[str, ProbeTask], folder: Path | None = None) -> Iterator[Plan]:
    """Yield `plan` with the statistics that its method needs: of each specialist, on the probe task that bears its vector's name.

    They are kept in `folder`, where later merges find them; without it beside the output, until the block ends well. What a stopped start has
    finished is not done again. Raises SelfposError: a vector without probe task, a task without vector, records of which no batch can be
    made, a loss that is not finite, a damaged model; OperationError when the disk refuses.
    """
    place = folder or plan.out.with_name(f".{plan.out.name}.statistics")
    tasks = _match(plan, probe)
    wanted = [
        _wanted(plan, name, index, task, place)
        for name in plan.method.probe
        for index, task in enumerate(tasks)
    ]
    with ExitStack() as stack:
        try:
            place.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(place))
            _gather(plan, [one for one in wanted if not one.file.exists()])
        except OSError as error:
            raise OperationError(f"cannot gather statistics in {place}: {error.strerror or error}") from error
        except SelfposError:
            if folder is None:
                shutil.rmtree(place, ignore_errors=True)
            raise
        files = {name: [one.file for one in wanted if one.statistic == name] for name in plan.method.probe}
        told = {
            "probe": {
                name: {"type": task.type.name, "records": len(task.dataset), "hash": probe_hash(task)}
                for name, task in probe.items()
            },
            "fingerprints": {f"{one.statistic} of {one.task.name}": one.fingerprint for one in wanted},
        }
        yield plan.with_statistics(files, {"statistics": told})
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def probe_hash(task: ProbeTask) -> str:
    """SHA-256 (hex) over the records of a probe task as a specialist sees them, behind their prompts."""
    from selfpos.data.sources import hash_records

    return hash_records(task.dataset)


def check(plan: Plan, probe: Mapping[str, ProbeTask]) -> None:
    """Raise SelfposError where `gathered` would for a probe set that does not fit the plan: names, or records of which no batch can be made."""
    _match(plan, probe)
    check_probe(plan.method.probe, probe, plan.seed)


def check_probe(statistics: tuple[str, ...], probe: Mapping[str, ProbeTask], seed: int) -> None:
    """Raise SelfposError when the records of a task do not make a batch that these statistics need."""
    for name in statistics:
        for task in probe.values():
            kinds()[name].pieces(_task_probe(task), seed)


def kinds() -> dict[str, Any]:
    """The statistics there are: name → the module with its `shapes`, `pieces` and `gather`."""
    from selfpos.statistics import fisher, gram

    return {"fisher": fisher, "gram": gram}


def _match(plan: Plan, probe: Mapping[str, ProbeTask]) -> list[TaskProbe]:
    """The probe task of each vector, in their order."""
    names = [vector.name for vector in plan.vectors]
    for vector in plan.vectors:
        if vector.name not in probe:
            raise SelfposError(
                f"method {plan.method.name} needs probe records of every vector's own task, and the probe set has no task '{vector.name}'"
                f"{nearest(vector.name, probe)}; it holds {', '.join(probe) or 'nothing'}"
            )
        if vector.differences:
            raise SelfposError(
                f"{vector.name} differs from the base ({vector.differences[0]}), so method {plan.method.name} cannot run it"
            )
    for name in probe:
        if name not in names:
            raise SelfposError(
                f"the probe set holds the task '{name}', for which there is no vector{nearest(name, names)}; method {plan.method.name} "
                "looks at each specialist on its own task only: leave the task away, or give its vector"
            )
    return [_task_probe(probe[name]) for name in names]


def _task_probe(task: ProbeTask) -> TaskProbe:
    from selfpos.positioning.objective import TaskProbe

    return TaskProbe(task.name, task.type, task.dataset, PositioningSettings().temperature)


def _wanted(plan: Plan, statistic: str, place: int, task: TaskProbe, folder: Path) -> Wanted:
    pieces = kinds()[statistic].pieces(task, plan.seed)
    held = [(piece.columns, None if piece.labels is None else piece.labels.tolist()) for piece in pieces]
    decides = [
        VERSION,
        statistic,
        plan.hashes[0],
        plan.hashes[1 + place],
        task.type.name,
        PositioningSettings().temperature,
        held,
    ]
    fingerprint = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    return Wanted(
        statistic, place, task, pieces, fingerprint, folder / f"{statistic}-{fingerprint[:16]}.safetensors"
    )


def _gather(plan: Plan, missing: list[Wanted]) -> None:
    if not missing:
        return
    import torch

    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.objective import texts_of
    from selfpos.statistics.totals import totals

    _refuse_damaged(plan)
    live = LiveModel(plan.base, plan.vectors, device="cuda" if torch.cuda.is_available() else "cpu")
    kept = {key: plan.tied.get(key, key) for key in live.keys}
    with progress(
        f"statistics ({plan.method.name})", sum(len(texts_of(one.pieces)) for one in missing), unit="text"
    ) as bar:
        for one in missing:
            alone = torch.zeros(len(live.keys), len(plan.vectors), dtype=torch.float64)
            alone[:, one.place] = 1
            live.set_coefficients(alone)
            kind = kinds()[one.statistic]
            shapes = kind.shapes(live)
            with totals(
                one.file, {kept[key]: shape for key, shape in shapes.items()}, {"selfpos": one.fingerprint}
            ) as sums:
                of_live = {key: sums[kept[key]] for key in shapes}
                kind.gather(
                    live,
                    one.task,
                    one.pieces,
                    of_live,
                    lambda texts, name=one.task.name: bar.advance(texts, task=name),
                )  # type: ignore[misc]
            log.info("%s of %s gathered", one.statistic, one.task.name)


def _refuse_damaged(plan: Plan) -> None:
    """Read everything once: the engine names the file and tensor of a number that is not finite, where a loss would only be nan."""
    from selfpos.merging.prepare import make_stream

    stream = replace(make_stream(plan), grain="element")
    for _ in stream.map(lambda key, ranges: sum(1 for _ in stream.chunks(key, ranges)), stream.tasks()):
        pass
