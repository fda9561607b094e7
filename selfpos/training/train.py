"""One training, from data to a whole model folder: a specialist from one task's data, a joint model from several."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import selfpos.processes as processes
from selfpos.console import is_first, log, screen
from selfpos.errors import OperationError, SelfposError, unknown
from selfpos.recipe import MixtureSettings, TrainingSettings
from selfpos.storage.atomic import fresh_folder, refuse_existing
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import display_name, hub_snapshot
from selfpos.storage.manifest import write_manifest
from selfpos.tasks import TaskType
from selfpos.tasks.prompts import Prompts, column_prompts, kept_prompts
from selfpos.training.checkpoints import Checkpoints, checkpoints_of
from selfpos.training.interruption import Interruption
from selfpos.training.loading import check_base, choose_precision, load_trainable
from selfpos.training.tracking import check_trackers, logs_beside

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class TrainingResult:
    """A model that was trained. `samples` are records drawn, `tokens` those of their texts without padding; `seconds` count from the first start.
    `losses` are (step, mean loss since the one before); `resumed_from` is the step a stopped training went on from."""

    out: Path
    name: str
    steps: int
    samples: int
    tokens: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    resumed_from: int | None


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
    base_name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Fine-tune the model folder `base` on `data` (task name → its type and records, canonical or as `TaskType.canonical` accepts them)
    and write it to `out`: a sentence-transformers folder, or a PEFT adapter folder with `settings.lora`; and a manifest.

    With several tasks every batch comes from a single one, and `mixture` says how often from which; with its surgery a step takes one batch of
    every task. `start` is a model that was trained from `base` by this function, with the same `lora` or without, and from which this
    training goes on. Equal inputs, seed and number of threads give equal bytes. A training that was stopped goes on from its last checkpoint
    in `<out>.checkpoints/`, which is removed at the end; Ctrl-C makes one of the step that it comes in. With `settings.validation` the model is measured as it learns and the best state is
    what is written; `validation` gives each task's records for that, where they are no share of `data`. `prompts` (task name → prompts) go
    before the texts and are kept in the model. `base_name` is what the manifest calls the base, its name on the Hub or its folder's
    when absent; `provenance` is added to it.

    Under torchrun or accelerate every process calls this alike: a step draws `batch_size` records in each, and the first writes.

    Raises SelfposError on settings or data that cannot be trained with, when `base` is no sentence-transformers folder and when `out` exists; OperationError when the training diverges
    (its last checkpoint is kept), or memory or disk run out.
    """
    refuse_existing(out)
    check_base(base)
    if not data:
        raise SelfposError("a training needs the data of at least one task")
    mixture = mixture or MixtureSettings()
    if mixture.surgery and len(data) < 2:
        raise SelfposError("gradient surgery is between tasks: it needs the data of two or more")
    if unknown_tasks := sorted(set(mixture.ratio) - set(data)):
        raise unknown("task", unknown_tasks[0], data)
    check_trackers(settings.report_to)
    processes.join(settings.device)
    from selfpos.console import quiet_libraries

    with quiet_libraries(), logs_beside(out), _outside_failures(settings):
        tasks = _prepare(data, settings, validation or {}, prompts or {}, seed)
        base_hash = content_hash(base)
        made_of: dict[str, Any] = {
            "base": {"name": base_name or display_name(base), **_place(base), "hash": base_hash},
            "tasks": {task: found.describe() for task, found in tasks.items()},
            "settings": settings.that_decide(),
            "mixture": mixture.mixture,
            **({"mixture_settings": mixture.model_dump(mode="json")} if len(data) > 1 else {}),
            **({"start": {"name": start.name, "hash": content_hash(start)}} if start else {}),
            "seed": seed,
            **({"processes": processes.count()} if processes.count() > 1 else {}),
        }
        identity = made_of | {"base": base_hash}
        with checkpoints_of(out, identity) as checkpoints, Interruption() as interruption:
            result, model, measured = _run(
                base,
                start,
                tasks,
                out,
                settings,
                checkpoints,
                interruption,
                seed=seed,
                mixture=mixture,
                name=name,
            )
            if is_first():
                manifest = {
                    "kind": "joint" if len(data) > 1 else "specialist",
                    "name": name,
                    **made_of,
                    **measured,
                    **(provenance or {}),
                }
                with fresh_folder(out) as folder:
                    from selfpos.training.saving import save_model

                    save_model(
                        model,
                        base,
                        folder,
                        kept_prompts({task: (found.kind, found.asked) for task, found in tasks.items()}),
                    )
                    write_manifest(folder, manifest)
            processes.wait()
            if is_first():
                checkpoints.remove()
    return result


@dataclass(frozen=True)
class _Task:
    """One task of a training: its type as it was given, and as the settings would have it learnt; its records and those to validate on,
    prepared for these two the other way round; its prompts, as they were asked for."""

    given: TaskType
    kind: TaskType
    records: Dataset
    held_out: Dataset | None
    asked: Prompts

    @property
    def prompts(self) -> dict[str, str]:
        """The prompt of each column of `records` that has one."""
        return column_prompts(self.kind, self.asked, self.records.column_names)

    def describe(self) -> dict[str, Any]:
        """What decides the result, for the manifest."""
        found: dict[str, Any] = {
            "type": self.kind.name,
            "records": len(self.records),
            "hash": _hash(self.records),
        }
        if self.prompts:
            found["prompts"] = self.prompts
        if self.held_out is not None:
            found["validation"] = {"records": len(self.held_out), "hash": _hash(self.held_out)}
        return found


def _prepare(
    data: Mapping[str, tuple[TaskType, Dataset]],
    settings: TrainingSettings,
    validation: Mapping[str, Dataset],
    prompts: Mapping[str, Prompts],
    seed: int,
) -> dict[str, _Task]:
    tasks = {}
    for task, (given, records) in data.items():
        kind, held_out = given.under(settings), None
        if settings.validation is not None:
            from selfpos.training.validation import split_validation

            # measured as the type itself is, whatever loss it learns by
            records, held_out = split_validation(
                task, given, records, validation.get(task), settings.validation, seed
            )
        tasks[task] = _Task(given, kind, kind.prepare(records, seed), held_out, prompts.get(task, ""))
    return tasks


def _run(
    base: Path,
    start: Path | None,
    tasks: Mapping[str, _Task],
    out: Path,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    interruption: Interruption,
    *,
    seed: int,
    mixture: MixtureSettings,
    name: str,
) -> tuple[TrainingResult, SentenceTransformer, dict[str, Any]]:
    """Train; returns the result, the model, and what was measured, for the manifest."""
    from datasets import DatasetDict
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
    from transformers import set_seed

    from selfpos.training.measure import environment
    from selfpos.training.objective import make_loss, named
    from selfpos.training.trainer import Arguments, Reporter, Trainer
    from selfpos.training.validation import TaskValidation, Validator

    set_seed(seed)  # before LoRA draws its first weights
    model = load_trainable(base, settings, start)
    precision = choose_precision(settings.precision, model.device)
    limit = model.max_seq_length
    length = (
        settings.max_length
        if limit is None or settings.max_length is None
        else min(settings.max_length, limit)
    )
    # Numbers for names: the trainer makes module names of them, where dots and some words are not allowed.
    numbered = {str(number): task for number, task in enumerate(tasks.values())}
    losses = {number: make_loss(task.kind, model, settings) for number, task in numbered.items()}
    several = len(tasks) > 1
    prompts = {number: task.prompts for number, task in numbered.items()}
    resume = checkpoints.latest()
    arguments = Arguments(
        output_dir=str(checkpoints.folder),
        max_steps=settings.steps or -1,
        gradient_accumulation_steps=len(tasks) if mixture.surgery else 1,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=min(settings.warmup, 1 - 1e-9),  # a share of all steps only below 1; see Arguments
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        activation_checkpointing=settings.gradient_checkpointing or None,
        seed=seed,
        dataloader_drop_last=True,
        dataloader_pin_memory=model.device.type == "cuda",
        multi_dataset_batch_sampler="round_robin"
        if mixture.mixture == "round-robin"
        else "proportional",  # others: Trainer
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",  # the reporter asks for checkpoints; the library's strategies make one at the end, too
        report_to=list(settings.report_to) or "none",
        run_name=name,
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
    )
    validator = None
    if settings.validation is not None:
        measures = {
            task: TaskValidation(found.given, found.held_out, found.asked, settings.validation.records)
            for task, found in tasks.items()
            if found.held_out is not None
        }
        validator = Validator(measures, settings.validation, checkpoints)
    with ExitStack() as stack:
        reporter = Reporter(name, checkpoints, settings.checkpoint_every, interruption, stack)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=DatasetDict({number: task.records for number, task in numbered.items()})
            if several
            else numbered["0"].records,
            loss=losses if several else losses["0"],
            data_collator=SentenceTransformerDataCollator(
                preprocess_fn=model.preprocess,
                max_length=length,
                prompts=prompts if several else prompts["0"],
            ),
            callbacks=[validator, reporter] if validator else [reporter],
            kinds={id(found.records): (task, found.kind) for task, found in tasks.items()},
            by_length=settings.batching == "length",
            max_tokens=length,
            mixture=mixture,
        )
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except OperationError as error:
            kept = checkpoints.latest()
            where = f"its last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
            raise OperationError(
                f"training {name} stopped, {error}; {where}; lower the learning rate"
            ) from None
    state = trainer.state
    if state.global_step == 0:
        raise SelfposError(
            f"training {name} found no batch of {settings.batch_size} with distinct texts in its data; lower the batch size"
        )
    if state.global_step < state.max_steps and not (validator and validator.stopped):
        notice = f"{name}: the data gave {state.global_step} steps instead of {state.max_steps}, for want of distinct texts"
        log.warning(notice)
        screen().print(f"[yellow]{notice}[/yellow]")
    if validator is not None:
        validator.restore_best(trainer)
    result = TrainingResult(
        out=out,
        name=name,
        steps=state.global_step,
        samples=state.global_step
        * arguments.train_batch_size
        * arguments.gradient_accumulation_steps
        * arguments.world_size,
        tokens=state.num_input_tokens_seen,
        seconds=reporter.took["seconds"],
        losses=tuple(reporter.losses),
        resumed_from=int(resume.name.removeprefix("step-")) if resume else None,
    )
    measured = {
        "losses": {task: named(loss) for task, loss in zip(tasks, losses.values(), strict=True)},
        "precision": precision,
        "steps": result.steps,
        "samples": result.samples,
        "tokens": result.tokens,
        "resumed_from": result.resumed_from,
        "loss_curve": reporter.losses,
        **reporter.took,
        **({"validation": validator.describe()} if validator else {}),
        **environment(model.device),
    }
    return result, trainer.model, measured


def _place(base: Path) -> dict[str, str]:
    """Where on the Hub the base is from, if it is."""
    snapshot = hub_snapshot(base)
    return {"repo": snapshot[0], "revision": snapshot[1]} if snapshot else {}


def _hash(dataset: Dataset) -> str:
    """SHA-256 in hex over the columns and records of a prepared data set."""
    whole = hashlib.sha256()
    for rows in dataset.iter(1000):
        whole.update(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode())
    return whole.hexdigest()


@contextmanager
def _outside_failures(settings: TrainingSettings) -> Iterator[None]:
    """Turn a full disk or a full GPU into one sentence."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise _out_of_memory("the GPU's memory", settings) from None
    except MemoryError:
        raise _out_of_memory("the memory", settings) from None
    except SelfposError:
        raise
    except Exception as error:
        # Told by their text: a full disk is a RuntimeError of torch's file writer and a plain Exception of safetensors, too little memory a
        # RuntimeError of torch's allocator.
        text = str(error)
        if "can't allocate memory" in text or "not enough memory" in text:
            raise _out_of_memory("the memory", settings) from None
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if not (
            full
            or "No space left on device" in text
            or "PytorchStreamWriter failed" in text
            or "(os error 28)" in text
        ):
            raise
        raise OperationError(
            "the disk is full; free some space and start again: the training goes on from its last checkpoint"
        ) from None


def _out_of_memory(what: str, settings: TrainingSettings) -> OperationError:
    length = settings.max_length or "that of the model"
    chunks = (
        f"set cached below {settings.cached}"
        if settings.cached
        else f"give cached a number of texts below {settings.batch_size}"
    )
    ways = [f"lower batch_size ({settings.batch_size}) or max_length ({length})", chunks]
    ways += [] if settings.gradient_checkpointing else ["switch gradient_checkpointing on"]
    ways += [] if settings.lora else ["train with lora"]
    return OperationError(f"{what} ran out; {', or '.join(ways)}")
