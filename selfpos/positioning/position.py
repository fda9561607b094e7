"""Self Positioning from folders to coefficients. It imports heavy libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import selfpos.processes
from selfpos.console import is_first, log, quiet_libraries
from selfpos.data.probe import ProbeTask
from selfpos.devices import default_device
from selfpos.errors import SelfposError, nearest
from selfpos.extras import need_extra
from selfpos.positioning import searches
from selfpos.positioning.coefficients import as_weights
from selfpos.positioning.draws import check_draws, probe_under, sharing_texts, split_probe
from selfpos.positioning.folds import check_records
from selfpos.positioning.linearised import LinearisedSearch
from selfpos.positioning.live import LiveModel
from selfpos.positioning.lowrank import LowRankModel, is_low_rank
from selfpos.positioning.objective import TaskProbe
from selfpos.positioning.outcome import Outcome, outcome_of, validated_outcome
from selfpos.positioning.problem import Problem
from selfpos.positioning.processes import Processes
from selfpos.positioning.selection import Selection
from selfpos.positioning.separated import merge_method, separated, separates
from selfpos.positioning.teaching import Teaching, teach
from selfpos.positioning.trajectory import Trajectory
from selfpos.positioning.verdict import Rival
from selfpos.recipe import PositioningSettings
from selfpos.storage.model_class import EMBEDDER, class_of, similarity_of
from selfpos.storage.model_folder import open_model
from selfpos.tasks.texts import TEXTS
from selfpos.tasks.types.classes import for_class
from selfpos.training.models import prompts_for
from selfpos.vectors import open_vectors

Parts = tuple[dict[str, TaskProbe], dict[str, TaskProbe]]

PAPERS_RECORDS = 32_000  # of the paper's probe set, all tasks together

#: the searches beside the linearised one: functions of (problem, selection, trajectory, seed)
SEARCHES: dict[str, Callable[..., None]] = {
    "sgd": searches.sgd,
    "cma-es": searches.cma_es,
    "loss-softmax": searches.loss_softmax,
}


@dataclass(frozen=True)
class Position:
    """A position V_p = Σ coefficients[i]·V_i, written by the merge that `merge_options` names.

    `tensors` holds the coefficients of each tensor where they may differ (granularity finer than the model,
    or tensors excluded), and `coefficients` is then their mean by share of squared length. `losses` and
    `scores` are those of the point kept: of the linearised search, smooth measures of all records, and
    measures of each at the point chosen without it; of others, on the validation part, or without one the
    last losses and no scores. `step` is the step of the point kept, `steps` those made. `interrupted` is set
    when Ctrl-C ended the search. Of the linearised search, `scale` is the tuned scale, `pull` the price on
    leaving it (None where the scale was kept) and `intervals` are 90 % intervals of the coefficients.
    `rivals` and `verdict` are the comparison with simple alternatives. `separated`: the V_i are those of
    `positioning.separated`. `teaching` says who taught tasks of plain texts.
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
    scale: float | None = None
    pull: float | None = None
    intervals: list[tuple[float, float]] | None = None
    rivals: list[Rival] = field(default_factory=list)
    verdict: str | None = None
    separated: bool = False
    teaching: Teaching | None = None

    @property
    def weights(self) -> list[float] | dict[str, list[float]]:
        """One weight a vector, or a rule for each tensor, for the method of `merge_options`."""
        return as_weights(self.coefficients, self.tensors)

    @property
    def merge_options(self) -> dict[str, Any]:
        """The merge that applies the position: `method`, `weights` and `params`, as keywords of `merge`."""
        return merge_method(self.separated) | {"weights": self.weights}


def check(
    probe: Mapping[str, ProbeTask], settings: PositioningSettings, *, seed: int, vectors: int | None = None
) -> None:
    """Raise SelfposError when no search with these settings could work on `probe`, before a model is loaded.

    `vectors` is the number of vectors, where it is known.
    """
    if settings.search != "linearised" and any(task.type is TEXTS for task in probe.values()):
        raise SelfposError(
            f"texts without labels have no loss for search {settings.search}: use search linearised, that of "
            "method self-positioning"
        )
    search, validation = _split(probe, settings, seed, "cosine")  # whatever the model compares by
    if settings.search == "linearised":
        labelled = {name: task for name, task in search.items() if task.type is not TEXTS}
        check_records(labelled, settings.temperature, seed)
        return
    for part in filter(None, (search, validation)):  # without validation the second part is empty
        check_draws(part, settings.batch_size, single=settings.batches == "single")
    if settings.search == "cma-es":
        need_extra("search", "search cma-es")
        if vectors == 1 and settings.space == "linear" and settings.granularity == "model":
            raise SelfposError(
                "search cma-es needs two coefficients or more, and there is one vector; "
                "use search linearised or sgd"
            )


def probe_for(base: Path, probe: Mapping[str, ProbeTask]) -> dict[str, ProbeTask]:
    """The probe with each task's type as models of the base's class learn it, and the prompts that these set.

    Raises SelfposError where they do not.
    """
    kind = class_of(base)
    if kind == EMBEDDER:
        return dict(probe)
    if any(task.type is TEXTS for task in probe.values()):
        raise SelfposError(
            f"texts without labels are compared by cosines of their embeddings, and a {kind} has none: give "
            "questions with their answers, by --probe FILE, or as finetune held them out"
        )
    return {
        name: replace(task, type=for_class(task.type, kind), prompts=prompts_for(kind, base, task.prompts))
        for name, task in probe.items()
    }


def _split(
    probe: Mapping[str, ProbeTask], settings: PositioningSettings, seed: int, similarity: str
) -> Parts:
    """The search part and the validation part. A probe that does not fit the settings is refused."""
    for name in settings.ratios:
        if name not in probe:
            raise SelfposError(
                f"positioning.ratios names the task '{name}', which the probe set does not have"
                f"{nearest(name, probe)}"
            )
    searched = probe_under(probe, settings)
    if settings.search == "linearised":
        return split_probe(searched, 0.0, seed, settings.temperature, similarity)
    changed = [name for name in probe if searched[name].type is not probe[name].type]
    if changed and settings.validation:
        raise SelfposError(
            f"sts_loss infonce leaves the pairs of task {changed[0]} no grade to be measured by: "
            "it goes with 'validation: 0'"
        )
    return split_probe(searched, settings.validation, seed, settings.temperature, similarity)


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
    parts = _split(probe_for(base, probe), settings, seed, similarity_of(base))
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
    live = open_live(base, sources, settings, device, processes, kind=class_of(base))
    tasks, teaching = teach(live, parts[0])
    parts = tasks, parts[1]
    problem = Problem(live, tasks, settings)
    with Trajectory(trajectory, state, writes=is_first()) as path, processes.interruptible():
        selfpos.processes.wait()  # until all have read the state that the search continues from
        interrupted, outcome = False, Outcome()
        try:
            outcome = _search(problem, parts, path, seed)
        except KeyboardInterrupt:
            if path.best is None or path.best.step == 0:
                raise  # no point is better than the start
            interrupted = True
        result = replace(_result(problem, path, outcome, interrupted), teaching=teaching)
    if interrupted:
        log.warning(
            "positioning stopped at step %d; the best point so far is kept, that of step %d",
            result.steps,
            result.step,
        )
    elif result.verdict:
        log.info("positioning: %s", result.verdict)
    return result


def _search(problem: Problem, parts: Parts, path: Trajectory, seed: int) -> Outcome:
    """Search. A killed search that had come to its end is not repeated."""
    name = problem.settings.search
    if name == "linearised":
        search = LinearisedSearch(problem, path, seed)
        return outcome_of(search, search.run(), seed)
    selection = Selection(parts[0], parts[1], problem.settings, seed) if parts[1] else None
    if done := path.kept.get("searched"):
        problem.live.embedded = done["texts"]
    else:
        if selection:
            selection.measure_base(problem.live)
        SEARCHES[name](problem, selection, path, seed=seed)
        if path.best is None:
            raise SelfposError(f"search {name} measured no point; give it more steps or evaluations")
        path.keep(searched={"texts": problem.live.embedded})
    assert path.best is not None
    if selection is None or not problem.settings.compare:
        return Outcome()
    return validated_outcome(problem, selection, path.best.parameters, seed)


def open_live(
    base: Path,
    sources: Sequence[Path],
    settings: PositioningSettings,
    device: str | None,
    processes: Processes | None = None,
    *,
    kind: str = EMBEDDER,
) -> LiveModel:
    """The live model of `settings` over the base folder and the fine-tuned `sources`, one a process."""
    folder = open_model(base)
    required = device or (processes.device if processes else None)
    used = required or default_device()
    # differences of embeddings a small step apart would be noise in bf16
    bf16_gpu = settings.search != "linearised" and used.startswith("cuda") and torch.cuda.is_bf16_supported()
    in_bf16 = settings.precision == "bf16" or (settings.precision == "auto" and bf16_gpu)
    specialists = open_vectors(folder, sources)
    vectors = specialists
    if separates(specialists, settings):
        vectors = separated(specialists, exclude=settings.exclude, device=used)
    model = LowRankModel if settings.low_rank and is_low_rank(vectors) else LiveModel
    with quiet_libraries():
        return model(
            folder,
            vectors,
            device=used,
            max_length=settings.max_length,
            exclude=settings.exclude,
            autocast=torch.bfloat16 if in_bf16 else None,
            vectors_in=settings.vectors_in,
            processes=processes,
            specialists=specialists,
            kind=kind,
        )


def _result(problem: Problem, path: Trajectory, outcome: Outcome, interrupted: bool) -> Position:
    best = path.best
    assert best is not None
    parameters = best.parameters if outcome.parameters is None else outcome.parameters
    tensors = None
    if problem.settings.granularity != "model" or problem.settings.exclude:
        table = problem.table(parameters).tolist()
        tensors = dict(zip(problem.live.keys, table, strict=True))
    return Position(
        names=problem.names,
        coefficients=problem.mean_coefficients(parameters).tolist(),
        parameters=dict(zip(problem.space.labels(problem.names), parameters[0].tolist(), strict=True)),
        losses=outcome.losses or best.losses,
        scores=outcome.scores or best.scores,
        tensors=tensors,
        step=best.step,
        steps=path.steps,
        seconds=path.seconds,
        texts=problem.live.embedded,
        interrupted=interrupted,
        scale=outcome.scale,
        pull=outcome.pull,
        intervals=outcome.intervals,
        rivals=outcome.rivals,
        verdict=outcome.verdict,
        separated=problem.live.separated,
    )
