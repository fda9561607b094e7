"""sentence-transformers' trainer, fitted to this house. Imports heavy libraries: import it only where a training starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import GroupByLabelBatchSampler, NoDuplicatesBatchSampler
from sentence_transformers.sentence_transformer.training_args import BatchSamplers, SentenceTransformerTrainingArguments
from transformers import PrinterCallback, TrainerCallback

from selfpos.console import Bar, log, progress
from selfpos.errors import OperationError, SelfposError
from selfpos.tasks import TaskType
from selfpos.training.batching import LengthBatchSampler
from selfpos.training.checkpoints import Checkpoints


class Arguments(SentenceTransformerTrainingArguments):
    """The library's arguments, with a warm-up that leaves at least the last step at the full learning rate."""

    def get_warmup_steps(self, num_training_steps: int) -> int:
        return min(super().get_warmup_steps(num_training_steps), num_training_steps - 1)


class Trainer(SentenceTransformerTrainer):
    """The library's trainer with each task's own batch sampler, no model card, and a stop at a loss that is not finite.

    `kinds`: for each training data set, by its `id`, the name of its task and its type. With `by_length` batches are made of texts of like
    length, of which `max_tokens` are read.
    """

    def __init__(
        self, *args: Any, kinds: Mapping[int, tuple[str, TaskType]], by_length: bool = False, max_tokens: int | None = None, **kwargs: Any
    ) -> None:
        self._kinds, self._by_length, self._max_tokens = kinds, by_length, max_tokens
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)

    def get_batch_sampler(self, dataset: Any, batch_size: int, **options: Any) -> Any:
        name, kind = self._kinds[id(dataset)]
        try:
            if self._by_length:
                sampler = LengthBatchSampler(dataset, kind, batch_size, options["generator"], options["seed"], self._max_tokens)
            else:
                sampler = self._make_sampler(kind.batch_sampler, dataset, batch_size=batch_size, **options)
        except ValueError as error:
            raise SelfposError(f"task '{name}' ({kind.name}) cannot be drawn in batches of {batch_size}: {error}") from None
        if len(sampler) == 0:
            raise SelfposError(
                f"task '{name}' ({kind.name}) gives no full batch of {batch_size} from its {len(dataset)} records; "
                "lower the batch size or give more data"
            )
        return sampler

    def _make_sampler(self, choice: BatchSamplers, dataset: Any, **options: Any) -> Any:
        if choice == BatchSamplers.NO_DUPLICATES:
            return NoDuplicatesBatchSampler(dataset, **options)
        if choice == BatchSamplers.GROUP_BY_LABEL:
            return GroupByLabelBatchSampler(dataset, **options)
        return super().get_batch_sampler(dataset, **options)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: cards are written by the publishing room, and the library's would look data sets and models up on the Hub."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        # One look per step, as the library does by default (logging_nan_inf_filter), but before the weights are touched.
        if not torch.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss.item():g} at step {self.state.global_step + 1}")
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the model of a checkpoint: no card (see above) and no pickled arguments."""
        self.model.save_pretrained(output_dir or self.args.output_dir, create_model_card=False)


class NotFiniteError(OperationError):
    """The training has diverged."""


class Reporter(TrainerCallback):
    """Shows and logs the course of a training, and has whole checkpoints kept. Enters its bar on `stack`, whose owner closes it."""

    def __init__(self, title: str, checkpoints: Checkpoints, every: int, stack: ExitStack) -> None:
        self.title, self.checkpoints, self.every, self._stack = title, checkpoints, every, stack
        self.losses: list[tuple[int, float]] = []
        self.seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = time.perf_counter()
        self._bar: Bar = self._stack.enter_context(progress(self.title, state.max_steps))
        self._bar.advance(state.global_step)
        self.losses = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        log.info("%s: step %d of %d", self.title, state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.advance(1)
        last = state.global_step >= state.max_steps or control.should_training_stop
        control.should_log = control.should_log or last
        control.should_save = (control.should_save or state.global_step % self.every == 0) and not last

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            self.losses.append((state.global_step, logs["loss"]))
            self._bar.advance(0, loss=logs["loss"], lr=logs["learning_rate"])
            log.info("%s: step %d loss %.4f lr %.3g", self.title, state.global_step, logs["loss"], logs["learning_rate"])

    def on_save(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        for name, weight in model.named_parameters():
            if not torch.isfinite(weight).all():
                raise NotFiniteError(f"the weights of {name} are not finite after step {state.global_step}")
        self.checkpoints.keep(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self._begun
