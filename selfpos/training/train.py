"""One training, from data to a whole model folder: a specialist, or a joint model of several tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import selfpos.processes as processes
from selfpos.console import is_first, warn
from selfpos.errors import OperationError, SelfposError, unknown
from selfpos.recipe import MixtureSettings, TrainingSettings
from selfpos.storage.atomic import fresh_folder, refuse_existing
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import display_name, hub_snapshot
from selfpos.storage.manifest import write_manifest
from selfpos.storage.model_class import class_of, similarity_of
from selfpos.tasks import TaskType
from selfpos.tasks.draws import gives_no_batch, why_no_batch
from selfpos.tasks.task import Prompts, column_prompts, kept_prompts
from selfpos.training.checkpoints import Checkpoints, Interruption, checkpoints_of, step_of
from selfpos.training.models import (
    check_trainable,
    choose_precision,
    load_trainable,
    prompts_for,
    save_model,
    settings_for,
)
from selfpos.training.outside import check_trackers, environment, outside_failures, tensorboard_beside

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class TrainingResult:
    """A model that was trained.

    `samples` are records drawn, `tokens` those of their texts without padding; `seconds` count from the first
    start. `losses` are (step, mean loss since the one before); `resumed_from` is the step that a stopped
    training continued from.
    """

    out: Path
    name: str
    steps: int
    samples: int
    tokens: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    resumed_from: int | None


@dataclass(frozen=True)
class _Task:
    """One task: its type as given and under the settings, its prepared records and those held out."""

    given: TaskType
    type: TaskType
    records: Dataset
    held_out: Dataset | None
    asked_prompts: Prompts

    @property
    def prompts(self) -> dict[str, str]:
        """The prompt of each column of `records` that has one."""
        return column_prompts(self.type, self.asked_prompts, self.records.column_names)

    def describe(self) -> dict[str, Any]:
        """What decides the result, for the manifest."""
        from selfpos.data.sources import hash_records

        count = len(self.records)
        facts: dict[str, Any] = {"type": self.type.name, "records": count, "hash": hash_records(self.records)}
        if self.prompts:
            facts["prompts"] = self.prompts
        if self.held_out is not None:
            facts["validation"] = {"records": len(self.held_out), "hash": hash_records(self.held_out)}
        return facts


def train(
    base: Path,
    data: Mapping[str, tuple[TaskType, Dataset]],
    out: Path,
    settings: TrainingSettings,
    *,
    seed: int,
    mixture: MixtureSettings | None = None,
    start: Path | None = None,
    name: str,
    validation: Mapping[str, Dataset] | None = None,
    prompts: Mapping[str, Prompts] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Fine-tune the model folder `base` on `data` and write the folder `out`: a model, or a PEFT adapter.

    Equal inputs, seed and number of threads give equal bytes. A stopped training continues from its last
    checkpoint in `<out>.checkpoints/`, which is removed at the end; Ctrl-C makes one. Under torchrun or
    accelerate every process calls this alike: a step draws `batch_size` records in each, the first writes.

    Args:
        base: a sentence-transformers folder.
        data: task name → its type and records. With several tasks every batch comes from a single one.
        out: must not exist.
        settings: how to train. With `validation` the best state is written.
        seed: of all random choices.
        mixture: how often a batch comes from which task.
        start: a model that this function trained from `base`, with the same `lora`, to continue from.
        name: of the model, in the manifest.
        validation: task name → records to validate on, where they are no share of `data`.
        prompts: task name → prompts before its texts, which the model keeps.
        provenance: further facts for the manifest.

    Raises:
        SelfposError: on settings or data that cannot be trained with, on a wrong base, or when `out` exists.
        OperationError: when the training diverges (its last checkpoint is kept), or memory or disk run out.
    """
    from selfpos.console import quiet_libraries

    refuse_existing(out)
    if not data:
        raise SelfposError("a training needs the data of at least one task")
    classes = {task_type.model_class for task_type, _ in data.values()}
    if len(classes) > 1:
        raise SelfposError(f"one model does not learn the tasks of {' and '.join(sorted(classes))}")
    kind = classes.pop()
    check_trainable(base, settings.max_length, kind)
    settings, asked = settings_for(kind, settings), dict(prompts or {})
    mixture = mixture or MixtureSettings()
    if mixture.surgery and len(data) < 2:
        raise SelfposError("gradient surgery is between tasks: it needs the data of two or more")
    if unknown_tasks := sorted(set(mixture.ratio) - set(data)):
        raise unknown("task", unknown_tasks[0], data)
    check_trackers(settings.report_to)
    processes.join(settings.device)
    with quiet_libraries(), tensorboard_beside(out), outside_failures(settings):
        used = {task: prompts_for(kind, base, asked.get(task, "")) for task in data}
        tasks = _prepare(data, settings, validation or {}, used, seed)
        base_hash = content_hash(base)
        made_of: dict[str, Any] = {
            "base": {"name": display_name(base), **hub_snapshot(base), "hash": base_hash},
            "tasks": {name: task.describe() for name, task in tasks.items()},
            "settings": settings.that_decide(),
            "mixture": mixture.mixture,
        }
        if len(data) > 1:
            made_of["mixture_settings"] = mixture.model_dump(mode="json")
        if start:
            made_of["start"] = {"name": start.name, "hash": content_hash(start)}
        made_of["seed"] = seed
        if processes.count() > 1:
            made_of["processes"] = processes.count()
        training = _Training(base, start, tasks, out, settings, seed, mixture, name)
        identity = made_of | {"base": base_hash}
        with checkpoints_of(out, identity) as checkpoints, Interruption() as interruption:
            result, model, measured = training.run(checkpoints, interruption)
            if is_first():
                role = "joint" if len(data) > 1 else "specialist"
                kept = kept_prompts(
                    {task: (entry.type, asked.get(task, "")) for task, entry in tasks.items()}
                )
                manifest = {"kind": role, "name": name, **made_of, **measured, **(provenance or {})}
                with fresh_folder(out) as folder:
                    save_model(model, base, folder, kept)
                    write_manifest(folder, manifest)
            processes.wait()
            if is_first():
                checkpoints.remove()
    return result


def try_steps(
    base: Path, task: tuple[TaskType, Dataset], settings: TrainingSettings, prompts: Prompts
) -> tuple[float, int]:
    """Seconds of a step of a task's training, and bytes of what it trains in float32, by two steps from
    `base` of which nothing is kept. Raises as `train` does.
    """
    from tempfile import TemporaryDirectory

    from selfpos.console import quiet_libraries

    short = settings.model_copy(update={"steps": 2, "validation": None, "report_to": []})
    with TemporaryDirectory() as folder, quiet_libraries(), outside_failures(short):
        out = Path(folder) / "trial"
        tasks = _prepare({"": task}, short, {}, {"": prompts}, seed=0)
        training = _Training(base, None, tasks, out, short, 0, MixtureSettings(), "trying steps")
        with checkpoints_of(out, {}) as checkpoints, Interruption() as interruption:
            result, model, _ = training.run(checkpoints, interruption)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return result.seconds / result.steps, 4 * trained


def check_data(
    task_type: TaskType,
    records: Dataset,
    settings: TrainingSettings,
    *,
    validation: Dataset | None = None,
    prompts: Prompts = "",
    seed: int,
) -> None:
    """Raise SelfposError for one task's records that `train` would refuse under these settings: those that
    give nothing to learn, no batch, or no measure of a state where it validates.
    """
    held_out = {"": validation} if validation is not None else {}
    task = _prepare({"": (task_type, records)}, settings, held_out, {"": prompts}, seed)[""]
    if len(task.records) < settings.batch_size:
        raise SelfposError(
            f"{len(task.records)} records to train on give no batch of {settings.batch_size}; lower "
            "training.batch_size, or give more data"
        )
    texts = task.type.texts_of(task.records.column_names)
    if task.type.sampler == "no_duplicates" and gives_no_batch(task.records, texts, settings.batch_size):
        raise SelfposError(why_no_batch(task.records, texts, settings.batch_size))
    if settings.validation is not None and task.held_out is not None:
        from selfpos.training.validation import task_measure

        task_measure(task_type, task.held_out, prompts, settings.validation.records)


def _prepare(
    data: Mapping[str, tuple[TaskType, Dataset]],
    settings: TrainingSettings,
    validation: Mapping[str, Dataset],
    prompts: Mapping[str, Prompts],
    seed: int,
) -> dict[str, _Task]:
    tasks = {}
    for task, (given_type, records) in data.items():
        held_out = None
        if settings.validation is not None:
            from selfpos.training.validation import split_validation

            # measured as the given type, whatever loss it learns by
            records, held_out = split_validation(
                task, given_type, records, validation.get(task), settings.validation, seed
            )
        task_type = given_type.under(settings)
        prepared = task_type.prepare(records, seed)
        tasks[task] = _Task(given_type, task_type, prepared, held_out, prompts.get(task, ""))
    return tasks


@dataclass(frozen=True)
class _Training:
    """One training whose data is prepared."""

    base: Path
    start: Path | None
    tasks: Mapping[str, _Task]
    out: Path
    settings: TrainingSettings
    seed: int
    mixture: MixtureSettings
    name: str

    def run(
        self, checkpoints: Checkpoints, interruption: Interruption
    ) -> tuple[TrainingResult, Any, dict[str, Any]]:
        """Train; returns the result, the model, and the measurements for the manifest."""
        from transformers import set_seed

        from selfpos.training.objective import loss_name, make_loss
        from selfpos.training.trainer import Reporter
        from selfpos.training.validation import Validator

        settings = self.settings
        set_seed(self.seed)  # before LoRA draws its first weights
        model = load_trainable(self.base, settings, self.start)
        length = model.max_seq_length
        precision = choose_precision(settings.precision, model.device)
        losses = {name: make_loss(task.type, model, settings) for name, task in self.tasks.items()}
        resume = checkpoints.latest()
        validator = None
        if settings.validation is not None:
            held_out = {
                name: (task.given, task.held_out, task.asked_prompts)
                for name, task in self.tasks.items()
                if task.held_out is not None
            }
            validator = Validator(held_out, settings.validation, checkpoints, similarity_of(self.base))
        with ExitStack() as stack:
            reporter = Reporter(self.name, checkpoints, settings.checkpoint_every, interruption, stack)
            callbacks = [validator, reporter] if validator else [reporter]
            trainer = self._trainer(model, precision, list(losses.values()), checkpoints.folder, callbacks)
            try:
                trainer.train(resume_from_checkpoint=str(resume) if resume else None)
            except OperationError as error:
                last = checkpoints.latest()
                kept = f"its last good checkpoint is {last}" if last else "there is no checkpoint yet"
                raise OperationError(
                    f"training {self.name} stopped, {error}; {kept}; lower the learning rate"
                ) from None
        took, state, arguments = reporter.spent.now(), trainer.state, trainer.args
        if state.global_step == 0:
            distinct = (task for task in self.tasks.values() if task.type.sampler == "no_duplicates")
            task = next(distinct, next(iter(self.tasks.values())))
            texts = task.type.texts_of(task.records.column_names)
            raise SelfposError(
                f"training {self.name} found {why_no_batch(task.records, texts, settings.batch_size)}"
            )
        if state.global_step < state.max_steps and not (validator and validator.stopped):
            warn(
                f"{self.name}: the data gave {state.global_step} steps instead of {state.max_steps}, "
                "for want of distinct texts"
            )
        if validator is not None:
            validator.restore_best(trainer)
        if model.max_seq_length != length:  # shorter while training
            model.max_seq_length = length
        a_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        counts = {
            "steps": state.global_step,
            "samples": state.global_step * a_step,
            "tokens": state.num_input_tokens_seen,
            "resumed_from": step_of(resume) if resume else None,
        }
        result = TrainingResult(
            out=self.out, name=self.name, seconds=took["seconds"], losses=tuple(reporter.losses), **counts
        )
        measured = {
            "losses": {name: loss_name(loss) for name, loss in losses.items()},
            "precision": precision,
            **counts,
            "loss_curve": reporter.losses,
            **took,
            **({"validation": validator.describe()} if validator else {}),
            **environment(model.device),
        }
        return result, trainer.model, measured

    def _trainer(
        self, model: Any, precision: str, losses: Sequence[Any], folder: Path, callbacks: list[Any]
    ) -> Any:
        from datasets import DatasetDict

        from selfpos.training.trainer import TRAINERS, make_collator

        settings, mixture = self.settings, self.mixture
        limits = [limit for limit in (settings.max_length, model.max_seq_length) if limit is not None]
        length = min(limits, default=None)
        # numbers as names: the trainer makes module names of them, in which dots are not allowed
        numbered = {str(number): task for number, task in enumerate(self.tasks.values())}
        data: Any = DatasetDict({number: task.records for number, task in numbered.items()})
        loss: Any = dict(zip(numbered, losses, strict=True))
        prompts: Any = {number: task.prompts for number, task in numbered.items()}
        if len(numbered) == 1:
            data, loss, prompts = data["0"], loss["0"], prompts["0"]
        kind = class_of(self.base)
        trainer_class, arguments_class = TRAINERS[kind]
        arguments = arguments_class(
            output_dir=str(folder),
            max_steps=settings.steps or -1,
            gradient_accumulation_steps=len(numbered) if mixture.surgery else 1,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=min(settings.warmup, 1 - 1e-9),  # a share of all steps only below 1; see Arguments
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            gradient_checkpointing=settings.gradient_checkpointing or None,
            seed=self.seed,
            dataloader_drop_last=True,
            dataloader_pin_memory=model.device.type == "cuda",
            # for other mixtures see Trainer
            multi_dataset_batch_sampler="round_robin" if mixture.mixture == "round-robin" else "proportional",
            logging_steps=10,
            logging_first_step=True,
            logging_nan_inf_filter=False,
            save_strategy="no",  # the reporter asks for checkpoints
            report_to=list(settings.report_to) or "none",
            run_name=self.name,
            disable_tqdm=True,
            use_cpu=model.device.type == "cpu",
        )
        return trainer_class(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=loss,
            data_collator=make_collator(kind, model, prompts, length, settings.max_length),
            callbacks=callbacks,
            types={id(task.records): (name, task.type) for name, task in self.tasks.items()},
            by_length=settings.batching == "length",
            max_tokens=length,
            mixture=mixture,
        )
