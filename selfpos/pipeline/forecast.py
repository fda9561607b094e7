"""What a run would do, as `selfpos run --dry-run` shows it: data, models, scores, jobs, disk and time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from selfpos.console import in_words
from selfpos.data.tasks import TaskData
from selfpos.pipeline.trainings import Training
from selfpos.recipe import Recipe
from selfpos.storage.model_folder import open_model

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

MEGABYTE = 10**6
A_CHECKPOINT = 3  # times the trained weights: with AdamW's two averages


@dataclass(frozen=True)
class RunPlan:
    """A run that all checks let pass; `finished` are those of its jobs that an earlier start has left."""

    recipe: Recipe
    base: Path
    out: Path
    data: Mapping[str, TaskData]
    trainings: Sequence[Training]
    models: Sequence[str]
    tasks: Sequence[AbsTask]
    jobs: Sequence[str]
    finished: frozenset[str]

    def rows(self) -> list[tuple[str, str]]:
        """The plan as rows of label and text, but for time and disk."""
        rows = [("base", str(self.base))]
        for name, task in self.data.items():
            counts = f"trains on {len(task.training)} and holds out {len(task.probe)} for the probe"
            rows.append(("data", f"{name}, {task.type.name}: {task.description}; {counts}"))
        rows.append(("models", ", ".join(self.models)))
        scored = [f"{task.metadata.name} ({task.metadata.type})" for task in self.tasks]
        rows.append(("scored on", ", ".join(scored)))
        rows += [("job", f"{job}{' (finished before)' * (job in self.finished)}") for job in self.jobs]
        return rows

    def forecasts(self) -> list[tuple[str, str]]:
        """Rows about disk and time, for which two steps of each task are tried."""
        from selfpos.training.train import try_steps

        left = [training for training in self.trainings if training.job not in self.finished]
        tried = {
            name: try_steps(self.base, (task.type, task.training), self.recipe.training, task.source.prompts)
            for name, task in self.data.items()
            if any(name in training.tasks for training in left)
        }
        merges = [name for name in self.recipe.merges if f"merge/{name}" not in self.finished]
        whole = sum(entry.nbytes for entry in open_model(self.base).tensors.values())
        trained = max((nbytes for _, nbytes in tried.values()), default=0)
        disk = (len(left) + A_CHECKPOINT * bool(left)) * trained + len(merges) * whole
        there = next(path for path in (self.out, *self.out.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        seconds = {name: of_step for name, (of_step, _) in tried.items()}
        time = in_words(sum(self._seconds(training, seconds) for training in left))
        return [
            (
                "disk",
                f"about {disk / MEGABYTE:,.0f} MB for models and the largest checkpoint, of "
                f"{free / MEGABYTE:,.0f} MB that are free; kept embeddings come on top",
            ),
            (
                "time",
                f"about {time} of training, by two steps of each task tried here; merges, searches and "
                "scores come on top",
            ),
        ]

    def _seconds(self, training: Training, of_step: Mapping[str, float]) -> float:
        records = sum(len(self.data[task].training) for task in training.tasks) * training.share
        settings = self.recipe.training
        steps = training.steps or ceil(settings.epochs * records / settings.batch_size)
        batches = len(training.tasks) if training.mixture and training.mixture.surgery else 1
        return steps * batches * fmean(of_step[task] for task in training.tasks)
