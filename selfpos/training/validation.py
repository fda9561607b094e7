"""Measuring a model while it learns, on other records; keeping the best state, and early stopping."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

import selfpos.processes as processes
from selfpos.console import is_first, log
from selfpos.errors import SelfposError
from selfpos.storage.atomic import write_text
from selfpos.storage.model_class import EMBEDDER, RERANKER
from selfpos.tasks.measure import PairMeasure, SearchMeasure, TaskMeasure, Texts
from selfpos.tasks.similarity import similarities
from selfpos.tasks.task import Prompts, column_prompts
from selfpos.tasks.types.candidates import RIGHT
from selfpos.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from selfpos.recipe import ValidationSettings
    from selfpos.tasks import TaskType

BATCH = 64  # texts embedded at once: no activations are kept, so this takes little memory


def task_measure(
    task_type: TaskType, dataset: Dataset, prompts: Prompts, records: int, similarity: str = "cosine"
) -> TaskMeasure:
    """The measure of one task on at most `records` of its prepared validation records, or on all candidates
    of so many questions.

    Of labelled texts every second record only teaches the classifier. Texts without labels are ranked by
    `similarity`, the model's `similarity_fn_name`. Raises SelfposError where a reranker's
    records order nothing.
    """
    columns = task_type.texts_of(dataset.column_names)
    if task_type.model_class == RERANKER:
        drawn = set(list(dict.fromkeys(dataset[columns[0]]))[:records])
        rows = [row for row, question in enumerate(dataset[columns[0]]) if question in drawn]
        dataset = dataset.select(rows)
        questions, candidates = (dataset[column][:] for column in columns)
        measure = PairMeasure(list(zip(questions, candidates, strict=True)), dataset["label"][:], RIGHT)
        if not measure.judges:
            raise SelfposError(
                "no question of the validation records has both a right and a wrong candidate (of grades, "
                f"those from {RIGHT} are right), so no state is better than another; validate on others, or "
                "on none"
            )
        return measure
    prompt_of = column_prompts(task_type, prompts, columns)
    references = measured = range(min(len(dataset), records))
    if task_type.target == "label" and len(columns) == 1:
        references, measured = references[::2], references[1::2]
    parts = [dataset.select(part) for part in (references, measured)]
    texts = [Texts.of(part, columns, task_type.target, prompt_of, task_type.own_candidates) for part in parts]
    if task_type.model_class != EMBEDDER:
        return SearchMeasure(texts[1])
    return TaskMeasure(texts[0], texts[1], similarity)


def score(measure: TaskMeasure, model: Any) -> float:
    """The measure of `model` in its current state; higher is better."""
    if isinstance(measure, PairMeasure):
        raw = {"activation_fn": torch.nn.Identity(), "convert_to_tensor": True}
        scores = model.predict(measure.texts, batch_size=BATCH, show_progress_bar=False, **raw)
        return measure.score(scores[:, None])
    if isinstance(measure, SearchMeasure):
        return measure.score(similarities(model, measure.questions, measure.texts))
    embeddings = model.encode(
        measure.texts, prompt="", batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False
    )
    return measure.score(embeddings)


class Validator(TrainerCallback):
    """Measures every so many steps and after the last, and keeps the best state within the checkpoints.

    `tasks` are each task's type, prepared validation records and prompts, `similarity` is the model's. A
    checkpoint holds all measurements so far, and the best state in its folder `best`. The value of a state is
    the mean of the tasks' measures; of equal ones the earlier is better.
    """

    def __init__(
        self,
        tasks: Mapping[str, tuple[TaskType, Dataset, Prompts]],
        settings: ValidationSettings,
        checkpoints: Checkpoints,
        similarity: str,
    ) -> None:
        self.measures = {
            name: task_measure(*task, settings.records, similarity) for name, task in tasks.items()
        }
        self.settings, self.checkpoints = settings, checkpoints
        self.history: list[dict[str, Any]] = []
        self.stopped = False

    @property
    def best_step(self) -> int:
        """The step of the best measurement."""
        return max(self.history, key=lambda entry: entry["mean"])["step"]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step and (latest := self.checkpoints.latest()):
            self.history = json.loads((latest / "validation.json").read_text(encoding="utf-8"))

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: SentenceTransformer, **kwargs: Any
    ) -> None:
        step, last = state.global_step, state.global_step >= state.max_steps
        if not last and step % self.settings.every:
            return
        scores = processes.of_first({name: score(measure, model) for name, measure in self.measures.items()})
        self.history.append({"step": step, "scores": scores, "mean": sum(scores.values()) / len(scores)})
        words = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        log.info("validation at step %d: %s", step, words)
        since = sum(entry["step"] > self.best_step for entry in self.history)
        self.stopped = not last and self.settings.patience is not None and since >= self.settings.patience
        # a training that is killed here measures again and stops again, since this state is not the best
        control.should_training_stop = control.should_training_stop or self.stopped
        control.should_save = self.best_step == step and not last

    def on_save(self, args: Any, state: Any, control: Any, model: SentenceTransformer, **kwargs: Any) -> None:
        if not is_first():
            return
        folder = self.checkpoints.written(state.global_step)
        write_text(folder / "validation.json", json.dumps(self.history))
        if self.history and self.best_step == state.global_step:
            model.save_pretrained(str(folder / "best"), create_model_card=False)
        elif (latest := self.checkpoints.latest()) and (latest / "best").is_dir():
            shutil.copytree(latest / "best", folder / "best")

    def restore_best(self, trainer: Any) -> None:
        """Restore the best state in the model of a finished `trainer`."""
        if self.best_step != trainer.state.global_step and (latest := self.checkpoints.latest()):
            trainer.load_best(latest / "best")

    def describe(self) -> dict[str, Any]:
        """All measurements, the step of the best, and whether the training ended early, for the manifest."""
        return {"best_step": self.best_step, "stopped_early": self.stopped, "history": self.history}


def split_validation(
    task: str,
    task_type: TaskType,
    records: Dataset,
    split: Dataset | None,
    settings: ValidationSettings,
    seed: int,
) -> tuple[Dataset, Dataset]:
    """(training records, prepared validation records) of one task, the latter of its `split` where given.

    Raises SelfposError when the validation records are too few to be measured.
    """
    from selfpos.data.probe import hold_out

    if split is None:
        if settings.share is None:
            raise SelfposError(
                f"task {task} comes without records of the split '{settings.split}' to validate on"
            )
        count = max(round(settings.share * len(records)), 4)
        records, split = hold_out(records, count, f"validation {seed}")
    try:
        return records, task_type.prepare(split, seed)
    except SelfposError as error:
        raise SelfposError(f"the {len(split)} validation records of task {task}: {error}") from None
