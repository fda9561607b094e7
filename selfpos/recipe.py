"""The recipe: what a run does, as typed and validated settings. Every default of the project that is not a method's own parameter lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

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


PAPER: dict[str, Any] = {
    "search": "sgd", "space": "spherical", "steps": 1000, "batch_size": 32, "learning_rate": 5e-3, "penalty": 0.05, "temperature": 0.02,
    "batches": "single", "normalise": "none", "validation": 0.0, "select": "loss", "extrapolation": 0.0, "positive": False, "compare": False,
}  # fmt: skip
"""Self Positioning as printed (Li et al., arXiv 2410.15035, section 3.3 and appendix), with the probe drawn 16,000 records a task."""


class PositioningSettings(Settings):
    """Self Positioning: find the coefficients of the task vectors by the losses of the merged model on the probe set.

    `preset: paper` gives the paper's own settings, on which fields given beside it still win.
    """

    preset: Literal["default", "paper"] = "default"
    search: Literal["linearised", "sgd", "cma-es", "loss-softmax"] = Field(
        "linearised", description="linearised: trust region by forward passes; sgd: the paper's; the others for comparison"
    )
    space: Literal["spherical", "polar", "linear", "simplex"] = Field(
        "linear", description="spherical: the paper's chain of SLERPs; polar: the same without an order; linear: free; simplex: shares of 1"
    )
    granularity: Literal["model", "kind", "layer-group", "layer", "tensor"] = Field("model", description="what shares its coefficients")
    layer_groups: int = Field(4, ge=1, description="groups of consecutive layers, for granularity layer-group")
    shrinkage: float = Field(1.0, ge=0, description="ρ, the pull of finer coefficients towards the model's: ρ·Σ share·offset²")
    angles: Literal["global", "tensor"] = Field("global", description="one angle between two vectors, or one for each tensor")
    angle_gradient: bool = Field(True, description="whether the angle to the chain so far, which depends on its a_i, is differentiated too")
    order: Literal["given", "longest-first", "shortest-first"] = Field("given", description="of the vectors in the chain")
    positive: bool = Field(True, description="keep every a_i of the chain above zero")
    exclude: list[str] = Field(default_factory=list, description="patterns of tensor names that stay at the base, as '*embeddings*'")

    temperature: float = Field(0.05, gt=0)
    in_batch_negatives: bool = Field(True, description="false: only a record's own negatives count")
    normalise: Literal["none", "base", "gain"] = Field(
        "base", description="unit of a task's loss: its own, the base's loss, or what the best specialist gains over the base"
    )
    balance: Literal["mean", "worst", "uncertainty"] = Field("mean", description="how the tasks' losses become one")
    ratios: dict[str, float] = Field(default_factory=dict, description="weight of a task in the mean; 1 when absent")
    penalty: float = Field(0.0, ge=0, description="μ of the paper's μ·λ")
    extrapolation: float = Field(0.02, ge=0, description="price ν of coefficients above 1 or below 0: ν·mean of their squared excess")

    validation: float = Field(
        0.5, ge=0, le=0.75, description="share of the probe held out to choose by; 0: all of it is searched on, the last point is kept"
    )
    validation_records: int = Field(128, ge=2, description="records of each task, at most, that a point is judged by")
    select: Literal["measure", "loss"] = Field("measure", description="choose by each task's own measure, or by the loss")
    guard: float = Field(1.0, ge=0, description="weight of what tasks lose against the base, when choosing by the measure")
    patience: int | None = Field(None, ge=1, description="judgements without a better point before the search ends")
    compare: bool = Field(True, description="measure the base, the specialists and tuned task arithmetic on the validation part as well")
    intervals: int = Field(20, ge=0, description="resamples behind the intervals of linearised coefficients and of gains; 0: none")

    rounds: int = Field(3, ge=1, description="of the linearised search")
    radius: float = Field(0.5, gt=0, description="of its first trust region, in coefficients")
    early_share: float = Field(0.5, gt=0, le=1, description="share of the records that its first round looks at")

    steps: int = Field(200, ge=1, description="of sgd")
    batch_size: int = Field(32, ge=4, description="probe records an sgd step; a mixed batch shares them evenly among the tasks")
    batches: Literal["mixed", "single"] = Field("mixed", description="whether an sgd step looks at all tasks, or at one of them in turn")
    learning_rate: float = Field(0.02, gt=0, description="of Adam")
    evaluate_every: int | None = Field(None, ge=1, description="steps between judgements; a twentieth of the steps when absent")
    chunk: int | None = Field(
        None, ge=1, description="texts whose activations are in memory at once (GradCache); all of a batch when absent"
    )
    dropout: bool = Field(False, description="whether the merged model's dropout is on while searching")

    evaluations: int = Field(200, ge=4, description="of cma-es")
    sigma: float = Field(0.3, gt=0, description="first standard deviation of cma-es")
    fitness: Literal["loss", "measure"] = Field("loss", description="what cma-es minimises")
    softmax_temperature: float = Field(5.0, gt=0, description="T of loss-softmax, c = softmax(−L/T)")
    examples: int = Field(5, ge=1, description="records of each task that loss-softmax looks at")

    max_length: int | None = Field(None, ge=8)
    precision: Literal["auto", "float32", "bf16"] = Field("auto", description="of the forward pass; auto: bf16 on GPUs that have it")
    low_rank: bool = Field(True, description="run LoRA adapters beside the base instead of merging them, when all vectors are such")
    vectors_in: Literal["auto", "disk", "float32", "bf16"] = Field(
        "auto", description="where vectors are kept: memory-mapped, or on the device"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_first(cls, data: Any) -> Any:
        return {**PAPER, **data} if isinstance(data, dict) and data.get("preset") == "paper" else data

    @model_validator(mode="after")
    def _fields_agree(self) -> PositioningSettings:
        if self.search in ("linearised", "loss-softmax") and self.space != "linear":
            raise ValueError(f"search {self.search} works in space linear, not {self.space}")
        if self.batches == "single" and self.search == "sgd" and self.balance != "mean":
            raise ValueError(f"balance {self.balance} compares tasks, so it needs mixed batches")
        if self.chunk and self.dropout:
            raise ValueError("chunk embeds every text twice, which dropout would make differ; switch one of them off")
        if self.fitness == "measure" and not self.validation:
            raise ValueError("fitness measure needs a validation part; give 'validation' a share")
        return self


class TaskSource(Settings):
    """One task: its type and the data it is trained on."""

    type: str = Field(description="a task type, see `selfpos tasks`")
    data: str | list[str] = Field(description="'corpus' (the embedded one), a local file or folder, or 'hub:NAME[:CONFIG][@REVISION]'")
    local: str | None = Field(None, description="the same data below --data-root, used when that is given")
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict, description="the type's column name: the data's column name")
    limit: int | None = Field(None, ge=1, description="records to keep, drawn with the run's seed")


class MixtureSettings(Settings):
    """How the batches of several tasks are mixed, each batch from a single task; `training/mixtures.py` has the formulas."""

    mixture: Literal["proportional", "round-robin", "temperature", "resampled"] = "proportional"
    alpha: float = Field(0.5, ge=0, le=1, description="of temperature, N^α: 1 is proportional, 0 as many of each task")
    size: Literal["total", "max"] = Field(
        "total", description="of resampled: as many records as all tasks have, or the largest ratio as many as the largest task has"
    )
    ratio: dict[Name, Annotated[float, Field(gt=0)]] = Field(default_factory=dict, description="of resampled: task → share; 1 when absent")
    surgery: Literal["pcgrad"] | None = Field(
        None, description="a step takes a batch of every task and projects conflicting gradients; goes with round-robin"
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
                f"surgery {self.surgery} takes a batch of every task in each step, so it needs round-robin, not {self.mixture}"
            )
        return self


class JointSettings(MixtureSettings):
    """A joint rival: one model trained on all tasks."""

    steps: int | None = Field(
        None, ge=1, description="as many batches as the specialists together when absent; with epochs, as many epochs"
    )


def _joint_form(value: Any) -> str:
    """Whether `joint` holds one setting or names with settings each, whose values are all mappings."""
    if isinstance(value, dict) and value and all(isinstance(part, dict | JointSettings) for part in value.values()):
        return "(one)" if set(value) == {"ratio"} else "(several)"
    return "(one)"


JointField = Annotated[
    Annotated[JointSettings, Tag("(one)")] | Annotated[dict[Name, JointSettings], Tag("(several)")], Discriminator(_joint_form)
]
"""One joint rival, called "joint", or several by name."""


class IterativeSettings(Settings):
    """The iterative pipeline: training on one task after the other, each from where the last ended. Every checkpoint is a task vector."""

    order: list[Name] = Field(default_factory=list, description="of the tasks; as they are listed when absent")
    steps: int | None = Field(None, ge=1, description="on each task; a specialist's when absent")


class BaggingSettings(MixtureSettings):
    """The bagging pipeline: one joint model on each of several random parts of the data, as task vectors (BOOM, arXiv 2602.05787)."""

    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.2, 0.4, 0.6, 0.8, 1.0],
        min_length=2,
        description="part of every task's records that each model is trained on",
    )
    steps: int | None = Field(None, ge=1, description="of all its models together; when absent each takes its share of the joint model's")


class BudgetSettings(Settings):
    """Every pipeline takes what the specialists take together, in records drawn or in steps of the optimizer. The two differ with surgery,
    whose steps draw a batch of every task."""

    equal: Literal["draws", "steps"]


class MergeSettings(Settings):
    """One merged model of a run: a method and its parameters, or Self Positioning and its settings."""

    method: str
    vectors: Literal["separate", "iterative", "bagging"] = Field("separate", description="the pipeline whose models are merged")
    weights: list[Any] | dict[str, Any] | None = Field(
        None, description="one per vector: numbers, ramps over depth, or rules by tensor name"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="the method's own parameters, see `selfpos methods`")
    positioning: PositioningSettings | None = None

    @model_validator(mode="after")
    def _positioning_belongs_to_its_method(self) -> MergeSettings:
        if self.positioning is not None and self.method != "self-positioning":
            raise ValueError(f"'positioning' belongs to method self-positioning, not to {self.method}")
        if self.method == "self-positioning" and (self.weights is not None or self.params):
            field = "weights" if self.weights is not None else "params"
            raise ValueError(
                f"'{field}' is for other methods: self-positioning finds the coefficients, and its settings go under 'positioning'"
            )
        return self


class EvaluationSettings(Settings):
    """What every model of the run is scored on."""

    tasks: list[str] = Field(
        default_factory=lambda: ["corpus"], min_length=1, description="MTEB task names; 'corpus': those of the embedded corpus"
    )
    local: list[str] = Field(
        default_factory=list, description="tasks scored besides when MTEB data is kept locally, such as 'selfpos-MRPC'"
    )
    benchmark: str | None = None
    data_dir: str | None = Field(None, description="folder with MTEB data kept locally")
    batch_size: int = Field(64, ge=1)


class ResourceSettings(Settings):
    """What a job asks of a cluster (`selfpos run --ray`); it computes in as many threads as it has CPUs."""

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0, description="a job that asks for none sees none")


class Recipe(Settings):
    """A whole run: specialists, the joint rival, merges, scores, report."""

    name: Name
    base: str = "all-MiniLM-L6-v2"
    seed: int = Field(0, ge=0, lt=2**32)
    tasks: dict[Name, TaskSource] = Field(min_length=1)
    training: TrainingSettings = TrainingSettings()
    joint: JointField | None = Field(default_factory=JointSettings, description="one setting, or name: setting of several rivals")
    iterative: IterativeSettings | None = None
    bagging: BaggingSettings | None = None
    budget: BudgetSettings | None = Field(None, description="absent: each pipeline as long as its own settings say")
    probe: ProbeSettings = ProbeSettings()
    merges: dict[Name, MergeSettings] = Field(min_length=1)
    evaluation: EvaluationSettings = EvaluationSettings()
    resources: dict[Literal["training", "merging", "evaluation"], ResourceSettings] = Field(
        default_factory=dict, description="of each job of a kind; one CPU when absent"
    )

    @property
    def joints(self) -> dict[str, JointSettings]:
        """The joint rivals by name."""
        if isinstance(self.joint, JointSettings):
            return {"joint": self.joint}
        return self.joint or {}

    @property
    def stages(self) -> dict[str, str]:
        """The checkpoints of the iterative pipeline by name, in order: the task that each was trained on last."""
        order = (self.iterative.order or list(self.tasks)) if self.iterative else []
        return {f"iterative-{number}-{task}": task for number, task in enumerate(order, start=1)}

    @property
    def bags(self) -> dict[str, float]:
        """The models of the bagging pipeline by name, in order: the share of the data that each is trained on."""
        return {f"bagging-{number}": share for number, share in enumerate(self.bagging.shares if self.bagging else [], start=1)}

    @model_validator(mode="after")
    def _pipelines_fit_the_tasks(self) -> Recipe:
        if self.iterative and self.iterative.order and sorted(self.iterative.order) != sorted(self.tasks):
            raise ValueError(
                f"iterative.order must name every task once: {', '.join(self.tasks)} (found {', '.join(self.iterative.order)})"
            )
        pipelines: dict[str, Any] = {"iterative": self.iterative, "bagging": self.bagging}
        for name, merge in self.merges.items():
            if merge.vectors in pipelines and pipelines[merge.vectors] is None:
                raise ValueError(f"merge {name} is of the vectors of '{merge.vectors}', a pipeline that the recipe does not have")
        if self.bagging and not any(merge.vectors == "bagging" for merge in self.merges.values()):
            raise ValueError(
                "'bagging' trains models to be merged, and no merge has 'vectors: bagging'; add one, of method multi-slerp say"
            )
        mixed = {name: joint for name, joint in {**self.joints, "bagging": self.bagging}.items() if joint}
        for name, joint in mixed.items():
            if joint.surgery and len(self.tasks) < 2:
                raise ValueError(f"{name}: gradient surgery is between tasks, and there is one task only")
            for task in joint.ratio:
                if task not in self.tasks:
                    raise ValueError(f"{name}: there is no task '{task}'{nearest(task, self.tasks)}")
        if self.budget:
            for name, settings in {**mixed, "iterative": self.iterative}.items():
                if settings is not None and settings.steps:
                    raise ValueError(f"{name} has steps of its own, which the budget decides; remove one of them")
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and validate the recipe at `path`. Raises SelfposError naming each wrong field, and the nearest right name."""
    return load_settings(path, Recipe)


def load_settings(path: Path, model: type[Model]) -> Model:
    """Read the YAML file at `path` as a `model`. Raises SelfposError naming each wrong field, and the nearest right name."""
    import yaml

    if not path.is_file():
        raise SelfposError(f"there is no recipe file {path}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SelfposError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise SelfposError(f"recipe {path} must be a mapping of fields, found {type(data).__name__}")
    return validate(model, data, f"recipe {path}")


def validate(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """Make a `model` from `data`; on a mistake raise one SelfposError that names every wrong field of `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_sentence(model, dict(fault)) for fault in error.errors()]
        raise SelfposError(f"{source}: " + "; ".join(faults)) from None


def _sentence(model: type[Settings], fault: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in fault["loc"] if part not in ("(one)", "(several)"))
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
