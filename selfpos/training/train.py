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

from selfpos.console import log, screen
from selfpos.errors import OperationError, SelfposError, unknown
from selfpos.recipe import MixtureSettings, TrainingSettings
from selfpos.storage.atomic import fresh_folder, refuse_existing
from selfpos.storage.hashing import content_hash
from selfpos.storage.locate import display_name, hub_snapshot
from selfpos.storage.manifest import write_manifest
from selfpos.storage.model_folder import read_modules
from selfpos.tasks import TaskType
from selfpos.training.checkpoints import Checkpoints, checkpoints_of

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
    base_name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Fine-tune the model folder `base` on `data` (task name → its type and records, canonical or as `TaskType.canonical` accepts them)
    and write it to `out`: a sentence-transformers folder, or a PEFT adapter folder with `settings.lora`; and a manifest.

    With several tasks every batch comes from a single one, and `mixture` says how often from which; with its surgery a step takes one batch of
    every task. `start` is a model that was trained from `base` by this function, with the same `lora` or without, and from which this
    training goes on. Equal inputs, seed and number of threads give equal bytes. A training that was stopped goes on from its last checkpoint
    in `<out>.checkpoints/`, which is removed at the end. `base_name` is what the manifest calls the base, its name on the Hub or its folder's
    when absent; `provenance` is added to it.

    Raises SelfposError on settings or data that cannot be trained with, when `base` is no sentence-transformers folder and when `out` exists; OperationError when the training diverges
    (its last checkpoint is kept), or memory or disk run out.
    """
    refuse_existing(out)
    read_modules(base)
    if not data:
        raise SelfposError("a training needs the data of at least one task")
    mixture = mixture or MixtureSettings()
    if mixture.surgery and len(data) < 2:
        raise SelfposError("gradient surgery is between tasks: it needs the data of two or more")
    if unknown_tasks := sorted(set(mixture.ratio) - set(data)):
        raise unknown("task", unknown_tasks[0], data)
    from selfpos.quiet import quiet_libraries

    with quiet_libraries(), _outside_failures(settings):
        prepared = {task: kind.prepare(records, seed) for task, (kind, records) in data.items()}
        base_hash = content_hash(base)
        made_of: dict[str, Any] = {
            "base": {"name": base_name or display_name(base), **_place(base), "hash": base_hash},
            "tasks": {
                task: {"type": data[task][0].name, "records": len(records), "hash": _hash(records)} for task, records in prepared.items()
            },
            "settings": settings.model_dump(mode="json", exclude={"checkpoint_every"}),
            "mixture": mixture.mixture,
            **({"mixture_settings": mixture.model_dump(mode="json")} if len(data) > 1 else {}),
            **({"start": {"name": start.name, "hash": content_hash(start)}} if start else {}),
            "seed": seed,
        }
        identity = made_of | {"base": base_hash}
        with checkpoints_of(out, identity) as checkpoints:
            result, model, measured = _run(base, start, data, prepared, out, settings, checkpoints, seed=seed, mixture=mixture, name=name)
            manifest = {"kind": "joint" if len(data) > 1 else "specialist", "name": name, **made_of, **measured, **(provenance or {})}
            with fresh_folder(out) as folder:
                from selfpos.training.saving import save_model

                save_model(model, base, folder)
                write_manifest(folder, manifest)
            checkpoints.remove()
    return result


def _run(
    base: Path,
    start: Path | None,
    data: Mapping[str, tuple[TaskType, Dataset]],
    prepared: Mapping[str, Dataset],
    out: Path,
    settings: TrainingSettings,
    checkpoints: Checkpoints,
    *,
    seed: int,
    mixture: MixtureSettings,
    name: str,
) -> tuple[TrainingResult, SentenceTransformer, dict[str, Any]]:
    """Train; returns the result, the model, and what was measured, for the manifest."""
    from datasets import DatasetDict
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
    from transformers import set_seed

    from selfpos.training.loading import choose_precision, load_trainable
    from selfpos.training.measure import environment
    from selfpos.training.trainer import Reporter, Trainer

    set_seed(seed)  # before LoRA draws its first weights
    model = load_trainable(base, settings, start)
    precision = choose_precision(settings.precision, model.device)
    limit = model.max_seq_length
    length = settings.max_length if limit is None or settings.max_length is None else min(settings.max_length, limit)
    # Numbers for names: the trainer makes module names of them, where dots and some words are not allowed.
    losses = {str(number): kind.loss(model, settings.temperature) for number, (kind, _) in enumerate(data.values())}
    kinds = {id(prepared[task]): (task, kind) for task, (kind, _) in data.items()}
    several = len(prepared) > 1
    resume = checkpoints.latest()
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints.folder),
        max_steps=settings.steps or -1,
        gradient_accumulation_steps=len(data) if mixture.surgery else 1,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=min(settings.warmup, 1 - 1e-9),  # a share of all steps only below 1
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        seed=seed,
        dataloader_drop_last=True,
        dataloader_pin_memory=model.device.type == "cuda",
        multi_dataset_batch_sampler="round_robin" if mixture.mixture == "round-robin" else "proportional",  # others: Trainer
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",  # the reporter asks for checkpoints; the library's strategies make one at the end, too
        report_to="none",
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
    )
    with ExitStack() as stack:
        reporter = Reporter(name, checkpoints, settings.checkpoint_every, stack)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=DatasetDict({str(n): records for n, records in enumerate(prepared.values())}) if several else _only(prepared),
            loss=losses if several else _only(losses),
            data_collator=SentenceTransformerDataCollator(preprocess_fn=model.preprocess, max_length=length),
            callbacks=[reporter],
            kinds=kinds,
            mixture=mixture,
        )
        try:
            trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except OperationError as error:
            kept = checkpoints.latest()
            where = f"its last good checkpoint is {kept}" if kept else "there is no checkpoint yet"
            raise OperationError(f"training {name} stopped, {error}; {where}; lower the learning rate") from None
    state = trainer.state
    if state.global_step == 0:
        raise SelfposError(f"training {name} found no batch of {settings.batch_size} with distinct texts in its data; lower the batch size")
    if state.global_step < state.max_steps:
        notice = f"{name}: the data gave {state.global_step} steps instead of {state.max_steps}, for want of distinct texts"
        log.warning(notice)
        screen().print(f"[yellow]{notice}[/yellow]")
    result = TrainingResult(
        out=out,
        name=name,
        steps=state.global_step,
        samples=state.global_step * arguments.train_batch_size * arguments.gradient_accumulation_steps,
        tokens=state.num_input_tokens_seen,
        seconds=reporter.took["seconds"],
        losses=tuple(reporter.losses),
        resumed_from=int(resume.name.removeprefix("step-")) if resume else None,
    )
    measured = {
        "losses": {task: type(loss).__name__ for task, loss in zip(data, losses.values(), strict=True)},
        "precision": precision,
        "steps": result.steps,
        "samples": result.samples,
        "tokens": result.tokens,
        "resumed_from": result.resumed_from,
        "loss_curve": reporter.losses,
        **reporter.took,
        **environment(model.device),
    }
    return result, trainer.model, measured


def _place(base: Path) -> dict[str, str]:
    """Where on the Hub the base is from, if it is."""
    snapshot = hub_snapshot(base)
    return {"repo": snapshot[0], "revision": snapshot[1]} if snapshot else {}


def _only(mapping: Mapping[str, Any]) -> Any:
    (value,) = mapping.values()
    return value


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
        raise OperationError(
            f"the GPU's memory ran out at batch size {settings.batch_size} and max_length {settings.max_length or 'of the model'}; "
            "lower either, or train with lora"
        ) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OperationError("the disk is full; free some space and start again: the training goes on from its last checkpoint") from None
