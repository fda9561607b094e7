"""The recipe: what a run does, as typed and validated settings. Every default of the project that is not a method's own parameter lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from selfpos.errors import SelfposError, nearest

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, '.', '_' and '-'")]


class Settings(BaseModel):
    """Settings refuse fields they do not know, and do not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Settings)


class LoraSettings(Settings):
    """Low-rank fine-tuning with PEFT; the specialist is saved as an adapter."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class TrainingSettings(Settings):
    """How a model is fine-tuned. One of `steps` and `epochs` decides the length; `steps` wins when both are given."""

    steps: int | None = Field(None, ge=1)
    epochs: float = Field(1, gt=0)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(2e-5, gt=0)
    warmup: float = Field(0.1, ge=0, le=1, description="share of the steps over which the learning rate rises from zero")
    temperature: float = Field(0.05, gt=0, description="of every InfoNCE loss, in training and on the probe alike")
    max_length: int | None = Field(None, ge=8, description="tokens per text while training; the model's own limit when absent")
    precision: Literal["auto", "float32", "bf16", "fp16"] = Field("auto", description="auto: bf16 on GPUs that have it, else float32")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints from which a stopped training resumes")
    lora: LoraSettings | None = None


class ProbeSettings(Settings):
    """The probe set: `per_task` records of each task, held out from its training data before training."""

    per_task: int = Field(256, ge=2)


class PositioningSettings(Settings):
    """Self Positioning (Li et al., arXiv 2410.15035, section 3.3): find the coefficients of the task vectors by descent on the probe set."""

    space: Literal["spherical", "polar", "linear", "simplex"] = Field(
        "spherical",
        description="spherical: the paper's chain of SLERPs; polar: the same without an order; linear: free; simplex: shares of 1",
    )
    granularity: Literal["model", "kind", "layer-group", "layer", "tensor"] = Field("model", description="what shares its coefficients")
    layer_groups: int = Field(4, ge=1, description="groups of consecutive layers, for granularity layer-group")
    shrinkage: float = Field(1.0, ge=0, description="pull of finer coefficients towards the model's: ρ·Σ share·offset²")
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=2, description="probe records a step; a mixed batch shares them evenly among the tasks")
    batches: Literal["mixed", "single"] = Field("mixed", description="whether a step looks at all tasks, or at one of them in turn")
    learning_rate: float = Field(5e-3, gt=0, description="of Adam")
    penalty: float = Field(0.05, ge=0, description="μ of the paper's μ·λ")
    temperature: float = Field(0.05, gt=0)
    max_length: int | None = Field(None, ge=8)
    dropout: bool = Field(False, description="whether the merged model's dropout is on while searching")
    validation: float = Field(
        0.25,
        ge=0,
        le=0.75,
        description="share of the probe held out to choose the best iterate by; 0: all of it is searched on, the last is kept",
    )
    validation_records: int = Field(128, ge=2, description="records of each task, at most, that an iterate is judged by")
    evaluate_every: int | None = Field(None, ge=1, description="steps between such judgements; a twentieth of the steps when absent")
    angles: Literal["global", "tensor"] = Field("global", description="one angle between two vectors, or one for each tensor")
    angle_gradient: bool = Field(True, description="whether the angle to the chain so far, which depends on its a_i, is differentiated too")
    positive: bool = Field(True, description="keep every a_i of the chain above zero")
    exclude: list[str] = Field(default_factory=list, description="patterns of tensor names that stay at the base, as '*embeddings*'")


class TaskSource(Settings):
    """One task: its type and the data it is trained on."""

    type: str = Field(description="a task type, see `selfpos tasks`")
    data: str | list[str] = Field(description="'corpus' (the embedded one), a local file or folder, or 'hub:NAME[:CONFIG][@REVISION]'")
    local: str | None = Field(None, description="the same data below --data-root, used when that is given")
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict, description="the type's column name: the data's column name")
    limit: int | None = Field(None, ge=1, description="records to keep, drawn with the run's seed")


class JointSettings(Settings):
    """The joint rival: one model trained on all tasks, each batch from a single task."""

    mixture: Literal["proportional", "round-robin"] = "proportional"
    steps: int | None = Field(None, ge=1, description="sum of the specialists' steps when absent, so that sample draws are equal")


class MergeSettings(Settings):
    """One merged model of a run: a method and its parameters, or Self Positioning and its settings."""

    method: str
    weights: list[float] | None = None
    params: dict[str, Any] = Field(default_factory=dict, description="the method's own parameters, see `selfpos methods`")
    positioning: PositioningSettings | None = None

    @model_validator(mode="after")
    def _positioning_belongs_to_its_method(self) -> MergeSettings:
        if self.positioning is not None and self.method != "self-positioning":
            raise ValueError(f"'positioning' belongs to method self-positioning, not to {self.method}")
        return self


class EvaluationSettings(Settings):
    """What every model of the run is scored on."""

    tasks: list[str] = Field(
        default_factory=lambda: ["corpus"], min_length=1, description="MTEB task names; 'corpus': those of the embedded corpus"
    )
    benchmark: str | None = None
    data_dir: str | None = Field(None, description="folder with MTEB data kept locally")
    batch_size: int = Field(64, ge=1)


class Recipe(Settings):
    """A whole run: specialists, the joint rival, merges, scores, report."""

    name: Name
    base: str = "all-MiniLM-L6-v2"
    seed: int = Field(0, ge=0)
    tasks: dict[Name, TaskSource] = Field(min_length=1)
    training: TrainingSettings = TrainingSettings()
    joint: JointSettings | None = JointSettings()
    probe: ProbeSettings = ProbeSettings()
    merges: dict[Name, MergeSettings] = Field(min_length=1)
    evaluation: EvaluationSettings = EvaluationSettings()


def load_recipe(path: Path) -> Recipe:
    """Read and validate the recipe at `path`. Raises SelfposError naming each wrong field, and the nearest right name."""
    import yaml

    if not path.is_file():
        raise SelfposError(f"there is no recipe file {path}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SelfposError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise SelfposError(f"recipe {path} must be a mapping of fields, found {type(data).__name__}")
    return validate(Recipe, data, f"recipe {path}")


def validate(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """Make a `model` from `data`; on a mistake raise one SelfposError that names every wrong field of `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_sentence(model, dict(fault)) for fault in error.errors()]
        raise SelfposError(f"{source}: " + "; ".join(faults)) from None


def _sentence(model: type[Settings], fault: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, word = fault["loc"]
        return f"there is no field '{place}'{nearest(str(word), _fields_at(model, parents))}"
    if fault["type"] == "missing":
        return f"field '{place}' is missing"
    return (
        f"field '{place}': {fault['msg'].removeprefix('Value error, ')} (found {fault['input']!r})"
        if place
        else fault["msg"].removeprefix("Value error, ")
    )


def _fields_at(model: type[Settings], path: list[Any]) -> list[str]:
    """Field names of the settings that `path` leads to, below `model`; keys of free mappings are passed over."""
    import typing

    def settings_in(annotation: Any) -> type[Settings] | None:
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            return annotation
        return next((found for part in typing.get_args(annotation) if (found := settings_in(part))), None)

    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = settings_in(field.annotation) or model
    return list(model.model_fields)
