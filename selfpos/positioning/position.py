"""Self Positioning from folders to coefficients. It imports heavy libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import selfpos.processes
from selfpos.console import is_first, log
from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError, nearest
from selfpos.positioning import linearised, searches
from selfpos.positioning.coefficients import as_weights
from selfpos.positioning.draws import check_draws, probe_under, sharing_texts, split_probe
from selfpos.positioning.live import LiveModel
from selfpos.positioning.lowrank import LowRankModel, is_low_rank
from selfpos.positioning.objective import TaskProbe
from selfpos.positioning.problem import Problem
from selfpos.positioning.processes import Processes
from selfpos.positioning.selection import Rival, Selection, compare, verdict
from selfpos.positioning.trajectory import Trajectory
from selfpos.recipe import PositioningSettings
from selfpos.storage.model_folder import open_model
from selfpos.vectors import open_vectors

Parts = tuple[dict[str, TaskProbe], dict[str, TaskProbe]]
Spread = list[tuple[float, float]]

PAPERS_RECORDS = 32_000  # of the paper's probe set, all tasks together

#: functions of (problem, selection, trajectory, seed)
SEARCHES: dict[str, Callable[..., Any]] = {
    "sgd": searches.sgd,
    "linearised": linearised.search,
    "cma-es": searches.cma_es,
    "loss-softmax": searches.loss_softmax,
}


@dataclass(frozen=True)
class Position:
    """A position V_p = Σ coefficients[i]·V_i.

    `tensors` holds the coefficients of each tensor where they may differ (granularity finer than the model,
    or tensors excluded), and `coefficients` is then their mean by share of squared length. `losses` and
    `scores` are those of the point kept: on the validation part, or without one, the last losses and no
    scores. `step` is the step of the point kept, `steps` those made. `interrupted` is set when Ctrl-C ended
    the search. `intervals` are 90 % intervals of the coefficients (linearised search), `rivals` and `verdict`
    the comparison with simple alternatives.
    """

    names: list[str]
    coefficients: list[float]
    parameters: dict[str, float]
    losses: dict[str, float]
    scores: dict[str, float]
    tensors: dict[str, list[float]] | None
    step: int
    steps: int
    seconds: float
    texts: int
    interrupted: bool = False
    intervals: Spread | None = None
    rivals: list[Rival] = field(default_factory=list)
    verdict: str | None = None

    @property
    def weights(self) -> list[float] | dict[str, list[float]]:
        """The weights of method `linear` that apply it: one a vector, or a rule for each tensor."""
        return as_weights(self.coefficients, self.tensors)


def check(
    probe: Mapping[str, ProbeTask], settings: PositioningSettings, *, seed: int, vectors: int | None = None
) -> None:
    """Raise SelfposError when no search with these settings could work on `probe`, before a model is loaded.

    `vectors` is the number of vectors, where it is known.
    """
    for part in filter(None, _split(probe, settings, seed)):  # without validation the second part is empty
        check_draws(part, settings.batch_size, single=settings.batches == "single")
    if settings.search == "cma-es":
        searches.cma_library()
        if vectors == 1 and settings.space == "linear" and settings.granularity == "model":
            raise SelfposError(
                "search cma-es needs two coefficients or more, and there is one vector; "
                "use search linearised or sgd"
            )


def _split(probe: Mapping[str, ProbeTask], settings: PositioningSettings, seed: int) -> Parts:
    """The search part and the validation part. A probe that does not fit the settings is refused."""
    for name in settings.ratios:
        if name not in probe:
            raise SelfposError(
                f"positioning.ratios names the task '{name}', which the probe set does not have"
                f"{nearest(name, probe)}"
            )
    searched = probe_under(probe, settings)
    changed = [name for name in probe if searched[name].type is not probe[name].type]
    if changed and settings.validation and (settings.compare or settings.select == "measure"):
        raise SelfposError(
            f"sts_loss infonce leaves the pairs of task {changed[0]} no grade to be measured by: "
            "it goes with 'select: loss' and 'compare: false'"
        )
    return split_probe(searched, settings.validation, seed, settings.temperature)


def position(
    base: Path,
    sources: Sequence[Path],
    probe: Mapping[str, ProbeTask],
    settings: PositioningSettings,
    *,
    seed: int,
    trajectory: Path | None = None,
    state: Path | None = None,
    device: str | None = None,
) -> Position:
    """Learn the coefficients of task vectors that suit the probe set best. Writes no model.

    Equal seeds give equal results on one machine. Ctrl-C ends the search with the best point so far. Started
    by `accelerate launch` or `torchrun`, the processes share the work, each returns the result, and the first
    alone writes files.

    Args:
        base: model folder that the vectors start from.
        sources: folders of the models fine-tuned from `base`.
        probe: task name → its probe records. A task needs no vector of that name, nor a vector a task.
        settings: objective and search.
        seed: of all random choices.
        trajectory: JSON Lines file for the path of the search.
        state: file from which a killed search with the same arguments continues to the same result. The
            caller removes it.
        device: the GPU if there is one, when None.

    Returns:
        The position, with its losses and scores.

    Raises:
        SelfposError: without vectors, with too few probe records of a task, or for a loss or coefficient that
            is not finite.
        KeyboardInterrupt: after Ctrl-C before any point is better than the start.
    """
    if not sources:
        raise SelfposError("there is no task vector to position; give at least one fine-tuned model")
    parts = _split(probe, settings, seed)
    for task in sharing_texts(*parts) if parts[1] else ():
        log.warning(
            "records of task %s share texts and could not be kept apart: "
            "its validation part holds texts that are searched on",
            task,
        )
    records = sum(len(part.dataset) for part in parts[0].values())
    if settings.preset == "paper" and not settings.validation and records < PAPERS_RECORDS:
        log.warning(
            "the paper's preset fits all of the probe and holds nothing out; "
            "the paper has 32,000 records, here are %s",
            f"{records:,}",
        )
    processes = Processes.joined()
    live = open_live(base, sources, settings, device, processes)
    problem = Problem(live, parts[0], settings)
    selection = Selection(parts[0], parts[1], settings, seed) if parts[1] else None
    with Trajectory(trajectory, state, writes=is_first()) as path, processes.interruptible():
        selfpos.processes.wait()  # until all have read the state that the search continues from
        interrupted, spread = False, None
        try:
            if selection:
                selection.measure_base(live)
            spread = _search(problem, selection, path, seed)
        except KeyboardInterrupt:
            if path.best is None or path.best.step == 0:
                raise  # no point is better than the start
            interrupted = True
        result = _result(problem, path, spread, interrupted)
    if interrupted:
        log.warning(
            "positioning stopped at step %d; the best point so far is kept, that of step %d",
            result.steps,
            result.step,
        )
        return result
    return _with_rivals(result, problem, parts, path, seed)


def _search(problem: Problem, selection: Selection | None, path: Trajectory, seed: int) -> Spread | None:
    """Search; the best point is then `path.best`. Returns how far below and above each coefficient may lie.

    A killed search that had come to its end is not made again.
    """
    search = problem.settings.search
    if done := path.kept.get("searched"):
        problem.live.embedded = done["texts"]
        return done["spread"]
    around = SEARCHES[search](problem, selection, path, seed=seed)
    if path.best is None:
        raise SelfposError(f"search {search} measured no point; give it more steps, rounds or evaluations")
    spread = around.coefficient_spread(seed) if around else None
    path.keep(searched={"spread": spread, "texts": problem.live.embedded})
    return spread


def open_live(
    base: Path,
    sources: Sequence[Path],
    settings: PositioningSettings,
    device: str | None,
    processes: Processes | None = None,
) -> LiveModel:
    """The live model of `settings` over the base folder and the fine-tuned `sources`, one a process."""
    folder = open_model(base)
    given = device or (processes.device if processes else None)
    chosen = given or ("cuda" if torch.cuda.is_available() else "cpu")
    bf16_gpu = chosen.startswith("cuda") and torch.cuda.is_bf16_supported()
    in_bf16 = settings.precision == "bf16" or (settings.precision == "auto" and bf16_gpu)
    vectors = open_vectors(folder, sources)
    kind = LowRankModel if settings.low_rank and is_low_rank(vectors) else LiveModel
    return kind(
        folder,
        vectors,
        device=chosen,
        max_length=settings.max_length,
        exclude=settings.exclude,
        autocast=torch.bfloat16 if in_bf16 else None,
        vectors_in=settings.vectors_in,
        processes=processes,
    )


def _result(problem: Problem, path: Trajectory, spread: Spread | None, interrupted: bool) -> Position:
    best = path.best
    assert best is not None
    coefficients = problem.mean_coefficients(best.parameters).tolist()
    tensors = intervals = None
    if problem.settings.granularity != "model" or problem.settings.exclude:
        table = problem.table(best.parameters).tolist()
        tensors = dict(zip(problem.live.keys, table, strict=True))
    if spread is not None:
        intervals = [(c + low, c + high) for c, (low, high) in zip(coefficients, spread, strict=True)]
    return Position(
        names=problem.names,
        coefficients=coefficients,
        parameters=dict(zip(problem.space.labels(problem.names), best.parameters[0].tolist(), strict=True)),
        losses=best.losses,
        scores=best.scores,
        tensors=tensors,
        step=best.step,
        steps=path.steps,
        seconds=path.seconds,
        texts=problem.live.embedded,
        interrupted=interrupted,
        intervals=intervals,
    )


def _with_rivals(result: Position, problem: Problem, parts: Parts, path: Trajectory, seed: int) -> Position:
    """`result` with the comparison to its rivals, where there is a validation part and `compare` is on."""
    settings = problem.settings
    if not parts[1] or not settings.compare:
        return result
    assert path.best is not None
    selection = Selection(parts[0], parts[1], settings.model_copy(update={"select": "measure"}), seed)
    selection.measure_base(problem.live)
    problem.apply(path.best.parameters)
    rivals = compare(problem.live, selection, selection.measure(problem.live), seed=seed)
    result = replace(result, rivals=rivals, verdict=verdict(rivals))
    log.info("positioning: %s", result.verdict)
    return result
