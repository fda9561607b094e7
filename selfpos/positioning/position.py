"""Self Positioning from folders to coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.console import is_first, log
from selfpos.errors import OperationError, SelfposError
from selfpos.positioning.coefficients import as_weights

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.positioning.judge import Judge
    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.problem import Problem
    from selfpos.positioning.processes import Processes
    from selfpos.positioning.trajectory import EndedSearch, Trajectory
    from selfpos.positioning.uncertainty import Rival
    from selfpos.recipe import PositioningSettings


@dataclass(frozen=True)
class Position:
    """A position found: V_p = Σ coefficients[i]·V_i.

    `tensors` holds the coefficients of each tensor where they may differ (granularity finer than the model, or tensors excluded), and
    `coefficients` is then their mean by share of squared length. `losses` and `scores` are those of the point kept: on the validation
    part, or, when nothing is held out, losses on the last records looked at and no scores. `step` is the step of the point kept, `steps`
    those made. `interrupted` is set when Ctrl-C ended the search. `intervals` are 90 % intervals of the coefficients (linearised search),
    `rivals` and `verdict` the comparison with simple alternatives on the validation part. Where settings were to be picked, `picked` are those
    of this position, and `tried` all of them in their order with what they came to, but for those with which no search could be made.
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
    intervals: list[tuple[float, float]] | None = None
    rivals: list[Rival] = field(default_factory=list)
    verdict: str | None = None
    picked: dict[str, Any] | None = None
    tried: list[Tried] = field(default_factory=list)

    @property
    def weights(self) -> list[float] | dict[str, list[float]]:
        """What method `linear` takes to apply this position: one weight a vector, or a rule for each tensor, all others staying at the base."""
        return as_weights(self.coefficients, self.tensors)


@dataclass(frozen=True)
class Tried:
    """Settings that a search was made with: the scores on the validation part of the point it kept, and the value it is chosen by (lower is better)."""

    settings: dict[str, Any]
    scores: dict[str, float]
    value: float


PAPERS_RECORDS = 32_000  # of the probe set, all tasks together


def check(
    probe: Mapping[str, ProbeTask], settings: PositioningSettings, *, seed: int, vectors: int | None = None
) -> None:
    """Raise SelfposError when no search with these settings could work on `probe` (and so many `vectors`), before anything is loaded or trained."""
    from selfpos.positioning import cma_es
    from selfpos.positioning.balance import check_ratios
    from selfpos.positioning.objective import check_draws, searched_by, split_probe

    check_ratios(settings.ratios, probe)
    searched = searched_by(probe, settings)
    _check_measures(probe, searched, settings)
    parts = split_probe(
        searched,
        settings.validation,
        seed,
        settings.temperature,
        in_batch_negatives=settings.in_batch_negatives,
    )
    for part in filter(None, parts):  # without validation the second is empty
        check_draws(part, settings.batch_size, single=settings.batches == "single")
    if settings.search == "cma-es":
        cma_es.library()
        if (
            vectors == 1
            and settings.space in ("linear", "simplex")
            and any(one.granularity == "model" for _, one in settings.candidates())
        ):
            raise SelfposError(
                "search cma-es needs two coefficients or more, and there is one vector; use search linearised or sgd"
            )


def _check_measures(
    probe: Mapping[str, ProbeTask], searched: Mapping[str, ProbeTask], settings: PositioningSettings
) -> None:
    """Raise SelfposError where points are to be measured by grades that the loss, as `settings` would have it, does not keep."""
    changed = [name for name in probe if searched[name].type is not probe[name].type]
    if changed and settings.validation and (settings.compare or settings.select == "measure"):
        raise SelfposError(
            f"sts_loss infonce leaves the pairs of task {changed[0]} no grade to be measured by: it goes with 'select: loss' and 'compare: false'"
        )


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
    """Find the coefficients of the task vectors of `sources` (fine-tuned from the model folder `base`) that suit the probe set best.

    A probe task needs no vector of its own, nor a vector a probe task. Equal seeds give equal results on one machine. Ctrl-C ends the
    search with the best point so far, or by KeyboardInterrupt where none is better than its start. `device` is the GPU if there is one. `trajectory` is a JSONL file for the way the search went (each line with its `setting`, where several are tried), `state`
    a file from which a search of the same arguments that was killed goes on, with the same result; it is for the caller to remove. Started by `accelerate
    launch` or `torchrun`, the processes share the work, each is given the result, and the first alone writes files.
    Raises SelfposError: no vector, too few probe records of a task, a loss or coefficient that is not finite.
    """
    import torch

    from selfpos.positioning.judge import Judge
    from selfpos.positioning.objective import searched_by, sharing_texts, split_probe
    from selfpos.positioning.problem import Problem
    from selfpos.positioning.processes import Processes
    from selfpos.positioning.trajectory import Trajectory

    if not sources:
        raise SelfposError("there is no task vector to position; give at least one fine-tuned model")
    searched = searched_by(probe, settings)
    _check_measures(probe, searched, settings)
    parts = split_probe(
        searched,
        settings.validation,
        seed,
        settings.temperature,
        in_batch_negatives=settings.in_batch_negatives,
    )
    for task in sharing_texts(*parts) if parts[1] else ():
        log.warning(
            "records of task %s share texts and could not be kept apart: its validation part holds texts that are searched on",
            task,
        )
    found = sum(len(part.dataset) for part in parts[0].values())
    if settings.preset == "paper" and not settings.validation and found < PAPERS_RECORDS:
        log.warning(
            "the paper's preset fits all of the probe and holds nothing out; the paper has 32,000 records, here are %s",
            f"{found:,}",
        )
    processes = Processes.joined()
    live = open_live(base, sources, settings, device, processes)
    candidates = settings.candidates()
    first = Problem(live, parts[0], candidates[0][1])
    problems = [first, *(Problem(live, parts[0], candidate, first.grams) for _, candidate in candidates[1:])]
    judge = Judge(parts[0], parts[1], settings, seed) if parts[1] else None
    with Trajectory(trajectory, state, writes=is_first()) as record, processes.interruptible():
        processes.wait()  # all have read where the search is to go on
        interrupted, impossible = False, None
        try:
            if judge:
                judge.measure_base(live)
            for (label, _), problem in zip(candidates, problems, strict=True):
                if done := next((one for one in record.closed if one.label == label), None):
                    live.embedded = done.texts
                    continue
                record.label = label
                torch.manual_seed(seed + processes.rank)  # dropout, where it is asked for
                try:
                    record.close(_find(problem, judge, record, seed), live.embedded)
                except SelfposError as error:
                    if isinstance(error, OperationError) or len(candidates) == 1:
                        raise
                    impossible = error
                    log.warning("left out, %s: %s", _words(label), error)
                    record.drop()
        except KeyboardInterrupt:
            interrupted = True
            if not record.closed and (record.best is None or record.best.step == 0):
                raise  # nothing was found that the start is not as good as
        ends = [
            *record.closed,
            *([record.ended(None, live.embedded)] if record.best else []),
        ]  # not closed: started again, it goes on
        if not ends:
            assert impossible is not None
            raise impossible
        ended = min(ends, key=lambda one: one.best.value)  # of equal values the first
        problem = next(
            problem for (label, _), problem in zip(candidates, problems, strict=True) if label == ended.label
        )
        result = _result(problem, ended, record.seconds, live.embedded, interrupted)
    if interrupted:
        log.warning(
            "positioning stopped at step %d; the best point so far is kept, that of step %d",
            ended.steps,
            ended.best.step,
        )
    if settings.pick:
        tried = [
            Tried(one.label, one.best.judgement.scores if one.best.judgement else {}, one.best.value)
            for one in ends
        ]
        result = replace(result, picked=ended.label, tried=tried)
        log.info("picked %s of %d settings", _words(ended.label), len(tried))
    return result if interrupted else _with_doubts(result, problem, parts, ended, seed)


def _words(label: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in label.items())


def _find(
    problem: Problem, judge: Judge | None, record: Trajectory, seed: int
) -> list[tuple[float, float]] | None:
    """Search, and refine where that is asked for: `record.best` is what came of it; returns the spread of its coefficients.

    Raises SelfposError for a search that measured no point, and as it does.
    """
    from selfpos.positioning.refine import refine

    spread = _search(problem, judge, record, seed)
    if judge and problem.settings.refine != "none":
        refine(problem, judge, record, seed=seed)
    if record.best is None:
        raise SelfposError(
            f"search {problem.settings.search} measured no point; give it more steps, rounds or evaluations"
        )
    return spread


def _search(
    problem: Problem, judge: Judge | None, record: Trajectory, seed: int
) -> list[tuple[float, float]] | None:
    """Search, unless a search that was killed had come to its end; how far below and above what was found each coefficient may lie."""
    from selfpos.positioning.uncertainty import coefficient_intervals

    if done := record.kept.get("searched"):
        problem.live.embedded = done["texts"]
        spread: list[tuple[float, float]] | None = done["spread"]
        return spread
    around = find_search(problem.settings.search)(problem, judge, record, seed=seed)
    spread = None
    if around is not None and problem.settings.intervals:
        spread = coefficient_intervals(around, [0.0] * len(problem.names), problem.settings.intervals, seed)
    record.keep(searched={"spread": spread, "texts": problem.live.embedded})
    return spread


def open_live(
    base: Path,
    sources: Sequence[Path],
    settings: PositioningSettings,
    device: str | None,
    processes: Processes | None = None,
) -> LiveModel:
    """The live model of `settings` over the model folder `base` and the fine-tuned `sources`, of which each of `processes` has one."""
    import torch

    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.lowrank import LowRankModel, is_low_rank
    from selfpos.storage.model_folder import open_model
    from selfpos.vectors import open_vectors

    folder = open_model(base)
    place = device or (processes and processes.device) or ("cuda" if torch.cuda.is_available() else "cpu")
    half = settings.precision == "bf16" or (
        settings.precision == "auto" and place.startswith("cuda") and torch.cuda.is_bf16_supported()
    )
    vectors = open_vectors(folder, sources)
    kind = LowRankModel if settings.low_rank and is_low_rank(vectors) else LiveModel
    return kind(
        folder,
        vectors,
        device=place,
        max_length=settings.max_length,
        exclude=settings.exclude,
        dropout=settings.dropout,
        autocast=torch.bfloat16 if half else None,
        vectors_in=settings.vectors_in,
        processes=processes,
    )


def find_search(name: str) -> Callable[..., Any]:
    """The search called `name`: a function of (problem, judge, trajectory, seed)."""
    from selfpos.positioning import cma_es, linearised, loss_softmax, sgd

    return {
        "sgd": sgd.search,
        "linearised": linearised.search,
        "cma-es": cma_es.search,
        "loss-softmax": loss_softmax.search,
    }[name]


def _result(problem: Problem, ended: EndedSearch, seconds: float, texts: int, interrupted: bool) -> Position:
    settings, best = problem.settings, ended.best
    # tensors that no adapter moves have no coefficient of their own: theirs may be anything
    whole = settings.granularity == "model" and settings.angles == "global" and not settings.exclude
    return Position(
        names=problem.names,
        coefficients=problem.mean_coefficients(best.parameters).tolist(),
        parameters=dict(zip(problem.space.labels(problem.names), best.parameters[0].tolist(), strict=True)),
        losses=best.losses,
        scores=best.judgement.scores if best.judgement else {},
        tensors=None
        if whole
        else dict(zip(problem.live.keys, problem.table(best.parameters).tolist(), strict=True)),
        step=best.step,
        steps=ended.steps,
        seconds=seconds,
        texts=texts,
        interrupted=interrupted,
    )


def _with_doubts(result: Position, problem: Problem, parts: Any, ended: EndedSearch, seed: int) -> Position:
    """`result` with intervals of its coefficients and the comparison with its rivals, as far as the settings ask for them."""
    from selfpos.positioning.judge import Judge
    from selfpos.positioning.uncertainty import compare, verdict

    settings = problem.settings
    if ended.spread is not None:
        about = zip(result.coefficients, ended.spread, strict=True)
        result = replace(result, intervals=[(c + low, c + high) for c, (low, high) in about])
    if parts[1] and settings.compare:
        judge = Judge(parts[0], parts[1], settings.model_copy(update={"select": "measure"}), seed)
        judge.measure_base(problem.live)
        problem.live.place(problem.table(ended.best.parameters))
        rivals = compare(problem.live, judge, judge.measure(problem.live), seed=seed)
        result = replace(result, rivals=rivals, verdict=verdict(rivals))
        log.info("positioning: %s", result.verdict)
    return result
