"""How several tasks are trained together, or one after the other, and what all pipelines may take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from selfpos.recipe.settings import Name, Settings


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
        None, ge=1, description="absent: as many batches, or with epochs as many epochs, as the specialists"
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
    steps: int | None = Field(None, ge=1, description="on each task; a specialist's when absent")


class BaggingSettings(MixtureSettings):
    """The bagging pipeline: joint models on random parts of the data as vectors (BOOM, arXiv 2602.05787)."""

    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.2, 0.4, 0.6, 0.8, 1.0],
        min_length=2,
        description="part of every task's records that each model is trained on",
    )
    steps: int | None = Field(
        None, ge=1, description="of all its models together; absent: each its share of the joint model's"
    )


class BudgetSettings(Settings):
    """Every pipeline takes what the specialists take together, in records drawn or in steps of the optimizer.

    The two differ with surgery, whose steps draw a batch of every task.
    """

    equal: Literal["draws", "steps"] = Field(description="what is equal")
