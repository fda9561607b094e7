"""Measuring a model as it learns on records that it does not learn from, keeping the best state, and stopping when it gets no better."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

import selfpos.processes as processes
from selfpos.console import is_first, log
from selfpos.errors import SelfposError
from selfpos.storage.atomic import write_text
from selfpos.tasks.measure import TaskMeasure, Texts
from selfpos.tasks.prompts import Prompts, column_prompts
from selfpos.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from selfpos.recipe import ValidationSettings
    from selfpos.tasks import TaskType

BATCH = 64
"""Texts embedded at once: no activations are kept, so that is little."""


class TaskValidation:
    """The measure of one task on its validation records, prepared for the loss.

    Of labelled texts, whose measure is that of a classifier, every second record teaches the classifier alone and the others are measured, too.
    """

    def __init__(self, kind: TaskType, dataset: Dataset, prompts: Prompts, records: int) -> None:
        columns = kind.texts_of(dataset.column_names)
        before = column_prompts(kind, prompts, columns)
        chosen = range(min(len(dataset), records))
        known, own = (
            (chosen[::2], chosen[1::2]) if kind.target == "label" and len(columns) == 1 else (chosen, chosen)
        )
        self.measure = TaskMeasure(
            *(Texts.of(dataset.select(rows), columns, kind.target, before) for rows in (known, own))
        )

    def score(self, model: SentenceTransformer) -> float:
        """The measure of `model` as it is now; higher is better."""
        return self.measure.score(
            model.encode(
                self.measure.texts,
                prompt="",
                batch_size=BATCH,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        )


class Validator(TrainerCallback):
    """Measures every so many steps and after the last, and has the best state kept within the checkpoints.

    A checkpoint holds all measurements so far and the best state in its folder `best`, so that a training which goes on from it forgets nothing.
    The value of a state is the mean of the tasks' measures; of equal ones the earlier is better.
    """

    def __init__(
        self, tasks: Mapping[str, TaskValidation], settings: ValidationSettings, checkpoints: Checkpoints
    ) -> None:
        self.tasks, self.settings, self.checkpoints = tasks, settings, checkpoints
        self.history: list[dict[str, Any]] = []
        self.stopped = False

    @property
    def best(self) -> dict[str, Any]:
        """The best measurement: its step, the tasks' scores and their mean."""
        return max(self.history, key=lambda entry: entry["mean"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and (latest := self.checkpoints.latest()):
            self.history = json.loads((latest / "validation.json").read_text(encoding="utf-8"))

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: SentenceTransformer, **kwargs: Any
    ) -> None:
        step, last = state.global_step, state.global_step >= state.max_steps
        if not last and step % self.settings.every:
            return
        scores = processes.of_first({name: task.score(model) for name, task in self.tasks.items()})
        self.history.append({"step": step, "scores": scores, "mean": sum(scores.values()) / len(scores)})
        log.info(
            "validation at step %d: %s",
            step,
            ", ".join(f"{name} {score:.4f}" for name, score in scores.items()),
        )
        since = sum(entry["step"] > self.best["step"] for entry in self.history)
        self.stopped = not last and self.settings.patience is not None and since >= self.settings.patience
        # The last measurement is of a state that is no best one, so a training that is cut off here measures again and stops again.
        control.should_training_stop = control.should_training_stop or self.stopped
        control.should_save = self.best["step"] == step and not last

    def on_save(self, args: Any, state: Any, control: Any, model: SentenceTransformer, **kwargs: Any) -> None:
        if not is_first():
            return
        folder = self.checkpoints.folder / f"checkpoint-{state.global_step}"
        write_text(folder / "validation.json", json.dumps(self.history))
        if self.history and self.best["step"] == state.global_step:
            model.save_pretrained(str(folder / "best"), create_model_card=False)
        elif (latest := self.checkpoints.latest()) and (latest / "best").is_dir():
            shutil.copytree(latest / "best", folder / "best", copy_function=_link)

    def restore_best(self, trainer: Any) -> None:
        """Have the model of a finished `trainer` in its best state again."""
        if self.best["step"] != trainer.state.global_step and (latest := self.checkpoints.latest()):
            trainer._load_from_checkpoint(str(latest / "best"))

    def describe(self) -> dict[str, Any]:
        """All measurements, the step of the best, and whether the training ended early, for the manifest."""
        return {"best_step": self.best["step"], "stopped_early": self.stopped, "history": self.history}


def split_validation(
    task: str,
    kind: TaskType,
    records: Dataset,
    given: Dataset | None,
    settings: ValidationSettings,
    seed: int,
) -> tuple[Dataset, Dataset]:
    """(training records, validation records prepared for the loss) of one task, whose validation split is `given` when it has one.

    Raises SelfposError when the validation records are too few to be measured.
    """
    from selfpos.data.probe import hold_out

    if given is None:
        if settings.share is None:
            raise SelfposError(
                f"task {task} comes without records of the split '{settings.split}' to validate on"
            )
        count = max(round(settings.share * len(records)), 4)
        records, given = hold_out(records, count, f"validation {seed}")
    try:
        return records, kind.prepare(given, seed)
    except SelfposError as error:
        raise SelfposError(f"the {len(given)} validation records of task {task}: {error}") from None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
    Path(target).chmod(0o644)
