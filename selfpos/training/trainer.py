"""sentence-transformers' trainer with what a training here needs; the one file that relies on its internals.

It imports heavy libraries: import it only where a training starts. `tests/training/test_internals.py` says
which internal method a new version of the library lacks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.data_collator import BaseDataCollator
from sentence_transformers.base.sampler import GroupByLabelBatchSampler, NoDuplicatesBatchSampler
from sentence_transformers.base.trainer import BaseTrainer
from sentence_transformers.base.training_args import BaseTrainingArguments
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator
from sentence_transformers.cross_encoder.training_args import CrossEncoderTrainingArguments
from sentence_transformers.multi_vector_encoder import MultiVectorEncoderTrainer
from sentence_transformers.multi_vector_encoder.data_collator import MultiVectorEncoderDataCollator
from sentence_transformers.multi_vector_encoder.training_args import MultiVectorEncoderTrainingArguments
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from sentence_transformers.sparse_encoder import SparseEncoderTrainer
from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments
from transformers import PrinterCallback, TrainerCallback

import selfpos.processes as processes
from selfpos.console import Bar, is_first, log, progress
from selfpos.errors import OperationError, SelfposError
from selfpos.recipe import MixtureSettings
from selfpos.storage.model_class import EMBEDDER, MULTI_VECTOR, RERANKER, SPARSE, default_prompt
from selfpos.tasks import TaskType
from selfpos.tasks.task import SIDES
from selfpos.training.checkpoints import Checkpoints, Interruption
from selfpos.training.outside import Spent
from selfpos.training.samplers import LengthBatchSampler, MixtureBatchSampler, records_per_epoch
from selfpos.training.surgery import Surgery

CHECKPOINT_SECONDS = 600.0
"""Of work that a kill may cost, whatever number of steps that is."""


class _WarmUp(BaseTrainingArguments):
    """The library's arguments, with a warm-up that leaves the last step at the full learning rate."""

    def get_warmup_steps(self, num_training_steps: int) -> int:
        return min(super().get_warmup_steps(num_training_steps), num_training_steps - 1)


class Arguments(_WarmUp, SentenceTransformerTrainingArguments):
    """Of models that embed texts."""


class PairArguments(_WarmUp, CrossEncoderTrainingArguments):
    """Of cross-encoders."""


class SparseArguments(_WarmUp, SparseEncoderTrainingArguments):
    """Of sparse encoders."""


class MultiVectorArguments(_WarmUp, MultiVectorEncoderTrainingArguments):
    """Of multi-vector encoders."""


class TaskTrainer(BaseTrainer):
    """The library's trainer with each task's batch sampler, more mixtures, and a stop at a loss not finite.

    `types`: the `id` of each training data set → its task's name and type. With surgery in `mixture` the
    batches of all tasks come in one step, by gradient accumulation. With `by_length` texts of like length
    share a batch, of which `max_tokens` are read.
    """

    def __init__(
        self,
        *args: Any,
        types: Mapping[int, tuple[str, TaskType]],
        mixture: MixtureSettings,
        by_length: bool,
        max_tokens: int | None,
        **kwargs: Any,
    ) -> None:
        self._types, self._mixture, self._by_length, self._max_tokens = types, mixture, by_length, max_tokens
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self._surgery = None
        if mixture.surgery:
            if self.args.world_size > 1:
                raise SelfposError(
                    "gradient surgery runs in one process: each would have the gradients of another task"
                )
            trained = [weight for weight in self.model.parameters() if weight.requires_grad]
            self._surgery = Surgery(trained, self.args.seed)

    def get_batch_sampler(self, dataset: Any, batch_size: int, **options: Any) -> Any:
        name, task_type = self._types[id(dataset)]
        samplers = {"no_duplicates": NoDuplicatesBatchSampler, "group_by_label": GroupByLabelBatchSampler}
        try:
            if self._by_length:
                sampler: Any = LengthBatchSampler(
                    dataset, task_type, batch_size, options["generator"], options["seed"], self._max_tokens
                )
            elif task_type.sampler in samplers:
                sampler = samplers[task_type.sampler](dataset, batch_size=batch_size, **options)
            else:
                sampler = super().get_batch_sampler(dataset, batch_size=batch_size, **options)
        except ValueError as error:
            raise SelfposError(
                f"task '{name}' ({task_type.name}) cannot be drawn in batches of {batch_size}: {error}"
            ) from None
        if len(sampler) == 0:
            raise SelfposError(
                f"task '{name}' ({task_type.name}) gives no full batch of {batch_size} from its "
                f"{len(dataset)} records; lower the batch size or give more data"
            )
        return sampler

    def get_multi_dataset_batch_sampler(self, dataset: Any, batch_samplers: Any, **options: Any) -> Any:
        if self._mixture.mixture in ("proportional", "round-robin"):  # the library's
            return super().get_multi_dataset_batch_sampler(dataset, batch_samplers, **options)
        sizes = {self._types[id(part)][0]: len(part) for part in dataset.datasets}
        records = records_per_epoch(self._mixture, sizes)
        batches = [max(1, count // batch_samplers[0].batch_size) for count in records.values()]
        return MixtureBatchSampler(dataset, batch_samplers, batches, seed=options["seed"])

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the publishing room writes cards, and the library's would look data sets up on the Hub."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        # one check per step, as the library does (logging_nan_inf_filter), but before the weights change
        if not torch.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss.item():g} at step {self.state.global_step + 1}")
        if self._surgery is not None and self.accelerator.sync_gradients:
            self._surgery.operate(self.state.global_step)
        elif self._surgery is not None:
            self._surgery.set_aside()
        return loss

    def load_best(self, folder: Path) -> None:
        """Load the weights, or the adapter, that a checkpoint keeps in `folder` into the model."""
        self._load_from_checkpoint(str(folder))

    def _track_num_input_tokens(self, inputs: Mapping[str, Any]) -> None:
        """Count the tokens of a batch without padding in the trainer's state, which checkpoints keep."""
        masks = [value for name, value in inputs.items() if name.endswith("attention_mask")]
        count = sum(int(mask.sum()) for mask in masks)
        # as good as the sum over processes, and none waits for another
        self.state.num_input_tokens_seen += count * self.args.world_size

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the model of a checkpoint: no card (see above) and no pickled arguments."""
        self.model.save_pretrained(output_dir or self.args.output_dir, create_model_card=False)


class Trainer(TaskTrainer, SentenceTransformerTrainer):
    """Of models that embed texts."""


class PairTrainer(TaskTrainer, CrossEncoderTrainer):
    """Of cross-encoders, whose loss tokenises the pairs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.register_forward_pre_hook(self._take)

    def _track_num_input_tokens(self, inputs: Mapping[str, Any]) -> None:
        """None: there are no tokens yet."""

    def _take(self, model: torch.nn.Module, inputs: tuple[Mapping[str, Any], ...]) -> tuple[dict[str, Any]]:
        """The features of a batch, counted; a dictionary, for several processes see no tensors in another."""
        if model.training:
            super()._track_num_input_tokens(inputs[0])
        return (dict(inputs[0]),)


class SparseTrainer(TaskTrainer, SparseEncoderTrainer):
    """Of sparse encoders."""


class MultiVectorTrainer(TaskTrainer, MultiVectorEncoderTrainer):
    """Of multi-vector encoders."""


TRAINERS: dict[str, tuple[type[TaskTrainer], type[BaseTrainingArguments]]] = {
    EMBEDDER: (Trainer, Arguments),
    RERANKER: (PairTrainer, PairArguments),
    SPARSE: (SparseTrainer, SparseArguments),
    MULTI_VECTOR: (MultiVectorTrainer, MultiVectorArguments),
}
"""Class of models → its trainer and arguments."""


def make_collator(
    kind: str, model: Any, prompts: Any, length: int | None, asked: int | None
) -> BaseDataCollator:
    """What makes batches of records for `model`, of the class `kind`: with these prompts of the columns, and
    texts cut at `length` tokens; of sparse and multi-vector encoders as each side is, and to `asked`.
    """
    if kind == EMBEDDER:
        return SentenceTransformerDataCollator(model.preprocess, max_length=length, prompts=prompts)
    if kind == RERANKER:
        if length != model.max_seq_length:
            model.max_seq_length = length  # which the loss goes by
        return CrossEncoderDataCollator(model.preprocess, prompts=default_prompt(model))
    limits = None
    if asked is not None:
        limits = {side: min(asked, getattr(model[0], f"{side}_length", None) or asked) for side in SIDES}
    # the one that tells questions from texts by their order
    return MultiVectorEncoderDataCollator(model.preprocess, max_length=limits, prompts=prompts)


class NotFiniteError(OperationError):
    """The training has diverged."""


class Reporter(TrainerCallback):
    """Shows and logs a training, and asks for checkpoints: by steps, every ten minutes, and after Ctrl-C.

    After an `interruption` the training ends with its checkpoint. The bar is entered on `stack`, whose owner
    closes it.
    """

    def __init__(
        self, title: str, checkpoints: Checkpoints, every: int, interruption: Interruption, stack: ExitStack
    ) -> None:
        self.title, self.checkpoints, self.every, self._stack = title, checkpoints, every, stack
        self._interruption, self._stopping = interruption, False
        self.losses: list[tuple[int, float]] = []
        self.spent = Spent()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if before := self.checkpoints.latest():
            self.spent.add(before)
        self._bar: Bar = self._stack.enter_context(progress(self.title, state.max_steps))
        self._bar.advance(state.global_step)
        self.losses = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        self._saved = time.monotonic()
        log.info("%s: step %d of %d", self.title, state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.advance(1)
        last = state.global_step >= state.max_steps or control.should_training_stop
        control.should_log = control.should_log or last
        long_ago = time.monotonic() - self._saved >= CHECKPOINT_SECONDS
        self._stopping, due = processes.in_any(self._interruption.noted, long_ago)
        due = due or self._stopping or state.global_step % self.every == 0
        control.should_save = (control.should_save or due) and not last

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if "loss" in logs:
            step, loss, rate = state.global_step, logs["loss"], logs["learning_rate"]
            self.losses.append((step, loss))
            self._bar.advance(0, loss=loss, lr=rate)
            log.info("%s: step %d loss %.4f lr %.3g", self.title, step, loss, rate)

    def on_save(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        for name, weight in model.named_parameters():
            if not torch.isfinite(weight).all():
                raise NotFiniteError(f"the weights of {name} are not finite after step {state.global_step}")
        processes.wait()  # until each has written its random state
        if is_first():
            self.spent.write(self.checkpoints.written(state.global_step))
            self.checkpoints.keep(state.global_step)
        processes.wait()
        self._saved = time.monotonic()
        if self._stopping:
            raise KeyboardInterrupt
