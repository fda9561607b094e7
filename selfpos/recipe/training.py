"""How models are trained: a specialist, several tasks together, or one task after the other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from selfpos.recipe.settings import MOST_STEPS, MOST_TOKENS, Name, Settings


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
    every: int = Field(
        100, ge=1, le=MOST_STEPS, description="steps between measurements; the last step is measured, too"
    )
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

    steps: int | None = Field(None, ge=1, le=MOST_STEPS, description="training steps; wins over epochs")
    epochs: float = Field(1, gt=0, description="passes over the data")
    batch_size: int = Field(32, ge=2, description="records of a step")
    learning_rate: float = Field(2e-5, gt=0, description="highest learning rate of AdamW")
    warmup: float = Field(
        0.1, ge=0, le=1, description="share of the steps over which the learning rate rises from zero"
    )
    temperature: float = Field(
        0.05,
        ge=1e-4,
        description="of every InfoNCE loss, in training and on the probe alike; for SPLADE and ColBERT "
        "1 where none is given",
    )
    max_length: int | None = Field(
        None,
        ge=8,
        le=MOST_TOKENS,
        description="tokens per text while training; the model's limit when absent",
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 on GPUs that have it, else float32"
    )
    checkpoint_every: int = Field(
        500, ge=1, le=MOST_STEPS, description="steps between checkpoints; at most ten minutes lie between two"
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


class MixtureSettings(Settings):
    """How the batches of several tasks are mixed, each batch from one task; see `training/samplers.py`."""

    mixture: Literal["proportional", "round-robin", "temperature", "resampled"] = Field(
        "proportional", description="how many records of each task an epoch has"
    )
    alpha: float = Field(
        0.5, ge=0, le=1, description="of temperature, N^α: 1 is proportional, 0 as many of each task"
    )
    size: Literal["total", "max"] = Field(
        "total",
        description="of resampled: as many records as all tasks, or as many of the first as the largest task",
    )
    ratio: dict[Name, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="of resampled: task → share; 1 when absent"
    )
    surgery: Literal["pcgrad"] | None = Field(
        None, description="a step takes a batch of every task and projects conflicting gradients; round-robin"
    )

    @model_validator(mode="before")
    @classmethod
    def _surgery_takes_all_tasks_in_turn(cls, data: Any) -> Any:
        return {"mixture": "round-robin", **data} if isinstance(data, dict) and data.get("surgery") else data

    @model_validator(mode="after")
    def _fields_belong_to_the_mixture(self) -> MixtureSettings:
        for field, owner in (("alpha", "temperature"), ("size", "resampled"), ("ratio", "resampled")):
            if field in self.model_fields_set and self.mixture != owner:
                raise ValueError(f"'{field}' belongs to mixture {owner}, not to {self.mixture}")
        if self.surgery and self.mixture != "round-robin":
            raise ValueError(
                f"surgery {self.surgery} takes a batch of every task in each step, "
                f"so it needs round-robin, not {self.mixture}"
            )
        return self


class JointSettings(MixtureSettings):
    """A joint model: one model trained on all tasks."""

    steps: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="absent: as many batches, or with epochs as many epochs, as the specialists",
    )
    on_probe: bool = Field(
        False, description="train it on the probe records, too, which all other trainings go without"
    )


def _joint_form(value: Any) -> str:
    """Whether `joint` holds one setting, or names with settings each, whose values are all mappings."""
    if isinstance(value, dict) and value and all(isinstance(v, dict | JointSettings) for v in value.values()):
        return "(one)" if set(value) == {"ratio"} else "(several)"
    return "(one)"


JointField = Annotated[
    Annotated[JointSettings, Tag("(one)")] | Annotated[dict[Name, JointSettings], Tag("(several)")],
    Discriminator(_joint_form),
]
"""One joint model, called "joint", or several by name."""


class IterativeSettings(Settings):
    """The iterative pipeline: one task after the other, each from the last model; each is a task vector."""

    order: list[Name] = Field(
        default_factory=list, description="of the tasks; as they are listed when absent"
    )
    steps: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="on each task; a specialist's when absent"
    )


class BaggingSettings(MixtureSettings):
    """The bagging pipeline: joint models on random parts of the data as vectors (BOOM, arXiv 2602.05787)."""

    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.2, 0.4, 0.6, 0.8, 1.0],
        min_length=2,
        description="part of every task's records that each model is trained on",
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="of all its models together; absent: each its share of the joint model's",
    )


class BudgetSettings(Settings):
    """Every pipeline takes what the specialists take together, in records drawn or in steps of the optimizer.

    The two differ with surgery, whose steps draw a batch of every task.
    """

    equal: Literal["draws", "steps"] = Field(description="what is equal")
