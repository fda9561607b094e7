"""Self Positioning from folders to coefficients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.console import log
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.recipe import PositioningSettings


@dataclass(frozen=True)
class Position:
    """A position found: V_p = Σ coefficients[i]·V_i.

    `tensors` holds the coefficients of each tensor where they differ (granularity finer than the model), and `coefficients` is then their
    mean by share of squared length. `losses` are those of the point kept: on the validation part, or of the last batch when nothing is
    held out. `step` is the step of the point kept, `steps` those made. `interrupted` is set when the search was stopped by Ctrl-C.
    """

    names: list[str]
    coefficients: list[float]
    parameters: dict[str, float]
    losses: dict[str, float]
    tensors: dict[str, list[float]] | None
    step: int
    steps: int
    seconds: float
    interrupted: bool = False


def position(
    base: Path,
    sources: Sequence[Path],
    probe: Mapping[str, ProbeTask],
    settings: PositioningSettings,
    *,
    seed: int,
    trajectory: Path | None = None,
    device: str | None = None,
) -> Position:
    """Find the coefficients of the task vectors of `sources` (fine-tuned from the model folder `base`) that suit the probe set best.

    A probe task needs no vector of its own, nor a vector a probe task. Equal seeds give equal results on one machine. Ctrl-C ends the
    search with the best point so far. `device` is the GPU if there is one. Raises SelfposError: no vector, no probe record of a task, a
    loss or coefficient that is not finite.
    """
    import torch

    from selfpos.positioning import sgd
    from selfpos.positioning.live import LiveModel
    from selfpos.positioning.objective import Draws, split_probe
    from selfpos.positioning.problem import Problem
    from selfpos.positioning.trajectory import Trajectory
    from selfpos.storage.model_folder import open_model
    from selfpos.vectors import open_vectors

    if not sources:
        raise SelfposError("there is no task vector to position; give at least one fine-tuned model")
    search_part, validation_part = split_probe(probe, settings.validation, seed, settings.temperature)
    folder = open_model(base)
    vectors = open_vectors(folder, sources)
    torch.manual_seed(seed)  # dropout, where it is asked for
    live = LiveModel(
        folder,
        vectors,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        max_length=settings.max_length,
        exclude=settings.exclude,
        dropout=settings.dropout,
    )
    problem = Problem(live, search_part, settings)
    validation = Draws(validation_part, settings.batch_size, seed, single=settings.batches == "single") if validation_part else None
    interrupted = False
    with Trajectory(trajectory) as record:
        try:
            sgd.search(problem, validation, record, seed=seed)
        except KeyboardInterrupt:
            interrupted = True
            log.warning("positioning stopped at step %d; the best point so far is kept", record.steps)
        best = record.best
        if best is None:
            raise KeyboardInterrupt
        table = problem.table(best.parameters)
        return Position(
            names=problem.names,
            coefficients=problem.mean_coefficients(best.parameters).tolist(),
            parameters=dict(zip(problem.space.labels(problem.names), best.parameters[0].tolist(), strict=True)),
            losses=best.losses,
            tensors=None
            if settings.granularity == "model" and settings.angles == "global"
            else dict(zip(live.keys, table.tolist(), strict=True)),
            step=best.step,
            steps=record.steps,
            seconds=record.seconds,
            interrupted=interrupted,
        )
