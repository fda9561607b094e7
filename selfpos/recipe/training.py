"""How a specialist is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selfpos.recipe.settings import Settings


class LoraSettings(Settings):
    """Low-rank fine-tuning with PEFT; the specialist is saved as an adapter."""

    rank: int = Field(16, ge=1, description="rank of the adapter's factors")
    alpha: float = Field(32, gt=0, description="the adapter is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the adapter")
    target_modules: str | list[str] = Field(
        "all-linear", description="modules with an adapter, as PEFT names them"
    )


class ValidationSettings(Settings):
    """Records held out of a training, on which the model is measured as it learns; the best state is kept.

    Exactly one of `share` and `split` says which records. Each task is measured by its type's measure.
    """

    share: float | None = Field(
        None, gt=0, le=0.5, description="of each task's training records, drawn with the seed"
    )
    split: str | None = Field(None, description="a split of the tasks' data, as 'validation'")
    every: int = Field(100, ge=1, description="steps between measurements; the last step is measured, too")
    patience: int | None = Field(
        None, ge=1, description="measurements without a better one before the training stops"
    )
    records: int = Field(500, ge=4, description="of each task, at most")

    @model_validator(mode="after")
    def _one_source(self) -> ValidationSettings:
        if (self.share is None) == (self.split is None):
            raise ValueError("validation wants either a share of the training data or the name of a split")
        return self


class TrainingSettings(Settings):
    """How a model is fine-tuned. `steps` or `epochs` decides the length; `steps` wins when both are given."""

    steps: int | None = Field(None, ge=1, description="training steps; wins over epochs")
    epochs: float = Field(1, gt=0, description="passes over the data")
    batch_size: int = Field(32, ge=2, description="records of a step")
    learning_rate: float = Field(2e-5, gt=0, description="highest learning rate of AdamW")
    warmup: float = Field(
        0.1, ge=0, le=1, description="share of the steps over which the learning rate rises from zero"
    )
    temperature: float = Field(
        0.05, gt=0, description="of every InfoNCE loss, in training and on the probe alike"
    )
    max_length: int | None = Field(
        None, ge=8, description="tokens per text while training; the model's limit when absent"
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs that have it, else float32"
    )
    checkpoint_every: int = Field(
        500, ge=1, description="steps between checkpoints; at most ten minutes lie between two"
    )
    lora: LoraSettings | None = Field(None, description="train an adapter instead of all weights")
    sts_loss: Literal["cosent", "infonce"] = Field(
        "cosent",
        description="loss of graded pairs: their order by cosine (CoSENT), or InfoNCE of the similar ones",
    )
    sts_positive: float = Field(
        0.8, gt=0, le=1, description="with sts_loss infonce: pairs graded so high, of 0 to 1, are positives"
    )
    cached: int | None = Field(
        None, ge=1, description="gradient caching: texts in memory at once, for large batches; slower"
    )
    matryoshka: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list, description="train for embeddings cut to these dimensions; add the whole, too"
    )
    batching: Literal["shuffled", "length"] = Field(
        "shuffled", description="length: texts of like length share a batch, which pads less"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, a third slower"
    )
    validation: ValidationSettings | None = Field(
        None, description="absent: not measured, the last state is kept"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="device to train on")
    report_to: list[Literal["wandb", "tensorboard", "mlflow", "trackio"]] = Field(
        default_factory=list, description="trackers that follow the training; their packages are needed"
    )

    def that_decide(self) -> dict[str, Any]:
        """The settings that decide the trained weights, as plain data."""
        return self.model_dump(mode="json", exclude={"checkpoint_every", "report_to"})
