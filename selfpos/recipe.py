"""The recipe: what a run does, as typed and validated settings. Every default of the project that is not a method's own parameter lives here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from selfpos.errors import SelfposError, nearest

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, '.', '_' and '-'")]


class Settings(BaseModel):
    """Settings refuse fields they do not know, and do not change once made."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True
    )  # most commands need few of the schemas, and each takes its time


Model = TypeVar("Model", bound=Settings)


class LoraSettings(Settings):
    """Low-rank fine-tuning with PEFT; the specialist is saved as an adapter."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class ValidationSettings(Settings):
    """Records held out of a training, on which the model is measured as it learns, each task by its type's own measure; the best state is kept.

    Exactly one of `share` and `split` says which records. `patience`, when given, ends the training early.
    """

    share: float | None = Field(None, gt=0, le=0.5, description="of each task's training records, drawn with the seed")
    split: str | None = Field(None, description="a split of the tasks' own data, as 'validation'")
    every: int = Field(100, ge=1, description="steps between measurements; the last step is measured, too")
    patience: int | None = Field(None, ge=1, description="measurements without a better one before the training stops")
    records: int = Field(500, ge=4, description="of each task, at most")

    @model_validator(mode="after")
    def _one_place(self) -> ValidationSettings:
        if (self.share is None) == (self.split is None):
            raise ValueError("validation wants either a share of the training data or the name of a split")
        return self


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
    sts_loss: Literal["cosent", "infonce"] = Field(
        "cosent", description="of graded pairs: their order by cosine (CoSENT), or InfoNCE of the similar ones, as the paper has it"
    )
    sts_positive: float = Field(
        0.8, gt=0, le=1, description="with sts_loss infonce: pairs graded at least so high, on a scale of 0 to 1, are positives"
    )
    cached: int | None = Field(
        None,
        ge=1,
        description="texts whose activations are in memory at once (GradCache): batches as large as one likes, twice the forward passes",
    )
    matryoshka: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list,
        description="dimensions at which the first numbers of an embedding are to serve by themselves; add the whole, too",
    )
    batching: Literal["shuffled", "length"] = Field(
        "shuffled",
        description="length: texts of like length share a batch, which saves padding; a task's rules for its batches hold either way",
    )
    gradient_checkpointing: bool = Field(False, description="compute activations again in the backward pass: less memory, a third slower")
    validation: ValidationSettings | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    report_to: list[Literal["wandb", "tensorboard", "mlflow", "trackio"]] = Field(
        default_factory=list,
        description="trackers that follow the training, as sentence-transformers' trainer does; their own packages are needed",
    )

    def that_decide(self) -> dict[str, Any]:
        """The settings that decide the trained weights, as plain data: equal ones, on equal data, give equal weights."""
        return self.model_dump(mode="json", exclude={"checkpoint_every", "report_to"})


class ProbeSettings(Settings):
    """The probe set: `per_task` records of each task, held out from its training data before training, or from another split of it."""

    per_task: int = Field(256, ge=2)
    ratio: dict[Name, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="task → share of the probe, 1 when absent; a task with the largest has `per_task` records"
    )
    split: str | None = Field(
        None, description="of the tasks' own data, as 'validation', that the probe is drawn from; nothing is held out"
    )

    def counts(self, tasks: Iterable[str]) -> dict[str, int]:
        """The probe records of each of `tasks`."""
        shares = {task: self.ratio.get(task, 1.0) for task in tasks}
        return {task: max(2, round(self.per_task * share / max(shares.values()))) for task, share in shares.items()}


PAPER: dict[str, Any] = {
    "search": "sgd", "space": "spherical", "steps": 1000, "batch_size": 32, "learning_rate": 5e-3, "penalty": 0.05, "temperature": 0.02,
    "batches": "single", "normalise": "none", "sts_loss": "infonce", "validation": 0.0, "select": "loss", "extrapolation": 0.0,
    "positive": False, "compare": False,
}  # fmt: skip
"""Self Positioning as printed (Li et al., arXiv 2410.15035, section 3.3 and appendix), with the probe drawn 16,000 records a task."""

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": PAPER,
    "lm-cocktail": {"search": "loss-softmax", "normalise": "none", "validation": 0.0, "extrapolation": 0.0, "compare": False},
    "layer-wise": {"search": "sgd", "granularity": "layer"},
    "cma-es": {"search": "cma-es"},
}
LEARNED = {"self-positioning": "default", "lm-cocktail": "lm-cocktail", "layer-wise": "layer-wise", "cma-es": "cma-es"}
"""The methods that find their coefficients on the probe set → their presets. What each does: `positioning/methods.py`."""


READ_BY = {
    "sgd": ("steps", "learning_rate", "evaluate_every", "dropout"),
    "linearised": ("rounds", "radius", "early_share"),
    "cma-es": ("evaluations", "sigma", "fitness"),
    "loss-softmax": ("softmax_temperature", "examples"),
}
"""Search → the settings that it alone looks at."""


class PositioningSettings(Settings):
    """Self Positioning: find the coefficients of the task vectors by the losses of the merged model on the probe set.

    `preset: paper` gives the paper's own settings, on which fields given beside it still win; the other presets are methods of their own.
    """

    preset: Literal["default", "paper", "lm-cocktail", "layer-wise", "cma-es"] = "default"
    search: Literal["linearised", "sgd", "cma-es", "loss-softmax"] = Field(
        "linearised", description="linearised: trust region by forward passes; sgd: the paper's; the others for comparison"
    )
    space: Literal["spherical", "polar", "linear", "simplex"] = Field(
        "linear", description="spherical: the paper's chain of SLERPs; polar: the same without an order; linear: free; simplex: shares of 1"
    )
    granularity: Literal["model", "kind", "layer-group", "layer", "tensor"] = Field("model", description="what shares its coefficients")
    layer_groups: int = Field(4, ge=1, description="groups of consecutive layers, for granularity layer-group")
    shrinkage: float = Field(1.0, ge=0, description="ρ, the pull of finer coefficients (not of λ) towards the model's: ρ·Σ share·offset²")
    angles: Literal["global", "tensor"] = Field("global", description="one angle between two vectors, or one for each tensor")
    angle_gradient: bool = Field(True, description="whether the angle to the chain so far, which depends on its a_i, is differentiated too")
    order: Literal["given", "longest-first", "shortest-first"] = Field("given", description="of the vectors in the chain")
    positive: bool = Field(True, description="keep every a_i of the chain above zero")
    exclude: Annotated[list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)] = Field(
        default_factory=list, description="patterns of tensor names that stay at the base, as '*embeddings*'"
    )

    temperature: float = Field(0.05, gt=0)
    in_batch_negatives: bool = Field(True, description="false: only a record's own negatives count")
    sts_loss: Literal["cosent", "infonce"] = Field(
        "cosent",
        description="of graded pairs on the probe: CoSENT, or InfoNCE of the similar ones, which is the paper's one loss for all tasks",
    )
    sts_positive: float = Field(0.8, gt=0, le=1, description="with sts_loss infonce: pairs graded at least so high are positives")
    normalise: Literal["none", "base", "gain"] = Field(
        "base", description="unit of a task's loss: its own, the base's loss, or what the best specialist gains over the base"
    )
    balance: Literal["mean", "worst", "uncertainty"] = Field("mean", description="how the tasks' losses become one")
    ratios: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="weight of a task in the mean; 1 when absent"
    )
    penalty: float = Field(0.0, ge=0, description="μ of the paper's μ·λ")
    extrapolation: float = Field(0.02, ge=0, description="price ν of coefficients above 1 or below 0: ν·mean of their squared excess")

    validation: float = Field(
        0.5, ge=0, le=0.75, description="share of the probe held out to choose by; 0: all of it is searched on, the last point is kept"
    )
    validation_records: int = Field(128, ge=2, description="records of each task, at most, that a point is judged by")
    pick: dict[Literal["granularity", "shrinkage", "penalty", "extrapolation"], Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="values to choose from on the validation part, a search for each combination: {granularity: [model, layer]}",
    )
    select: Literal["measure", "loss"] = Field("measure", description="choose by each task's own measure, or by the loss")
    guard: float = Field(1.0, ge=0, description="weight of what tasks lose against the base, when choosing by the measure")
    patience: int | None = Field(None, ge=1, description="judgements without a better point before the search ends")
    compare: bool = Field(True, description="measure the base, the specialists and tuned task arithmetic on the validation part as well")
    intervals: int = Field(20, ge=0, description="resamples behind the intervals of linearised coefficients; 0: none")

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
    dropout: bool = Field(False, description="whether the merged model's dropout is on in the steps of sgd")

    evaluations: int = Field(200, ge=4, description="of cma-es")
    sigma: float = Field(0.3, gt=0, description="first standard deviation of cma-es")
    fitness: Literal["loss", "measure"] = Field("loss", description="what cma-es minimises")
    refine: Literal["none", "coordinate", "cma-es"] = Field(
        "none",
        description="after the search, move the model's coefficients by the validation measures themselves, where that is clearly better",
    )
    refine_evaluations: int = Field(40, ge=1, description="points that the refinement measures, at most")
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
        if not isinstance(data, dict):
            return data
        preset = PRESETS.get(str(data.get("preset")), {})
        if data.get("search", preset.get("search")) != preset.get(
            "search"
        ):  # what the preset says of its own search does not go for another
            preset = {name: value for name, value in preset.items() if name not in READ_BY.get(preset.get("search", ""), ())}
        if twice := [name for name in data.get("pick") or () if name in data]:
            raise ValueError(f"'{twice[0]}' is both given and to be picked; keep one")
        return {**preset, **data}

    @model_validator(mode="after")
    def _fields_agree(self) -> PositioningSettings:
        if self.search in ("linearised", "loss-softmax") and self.space != "linear":
            raise ValueError(f"search {self.search} works in space linear, not {self.space}")
        if self.batches == "single" and self.search == "sgd" and self.balance != "mean":
            raise ValueError(f"balance {self.balance} compares tasks, so it needs mixed batches")
        if self.chunk and self.dropout:
            raise ValueError("chunk embeds every text twice, which dropout would make differ; switch one of them off")
        for search, fields in READ_BY.items():
            idle = [
                name for name in fields if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default
            ]
            if idle and search != self.search:
                raise ValueError(f"'{idle[0]}' is for search {search}, and this one is {self.search}, which does not look at it")
        if self.fitness == "measure" and not self.validation:
            raise ValueError("fitness measure needs a validation part; give 'validation' a share")
        if self.refine != "none" and not (self.validation and self.select == "measure"):
            raise ValueError("refine goes by the measures on a validation part; give 'validation' a share and 'select: measure'")
        if self.pick and not self.validation:
            raise ValueError("pick chooses on the validation part; give 'validation' a share")
        self.candidates()
        return self

    def candidates(self) -> list[tuple[dict[str, Any], PositioningSettings]]:
        """What `pick` is to choose from: each combination of its values, and the settings with it; these settings alone without a `pick`.

        Where all tensors share their coefficients there is nothing to shrink: of several values of shrinkage the first stands for all.
        Raises ValueError for a value that its setting cannot have.
        """
        found: list[tuple[dict[str, Any], PositioningSettings]] = []
        for values in itertools.product(*self.pick.values()) if self.pick else ():
            chosen = dict(zip(self.pick, values, strict=True))
            given = {name: getattr(self, name) for name in self.model_fields_set} | {"pick": {}}
            try:
                found.append((dict(chosen), type(self).model_validate(given | chosen)))
            except ValidationError as error:
                wrong = error.errors()[0]
                raise ValueError(f"pick, {'.'.join(map(str, wrong['loc'])) or 'settings'}: {wrong['msg']}") from None
            if found[-1][1].granularity == "model" and chosen.get("shrinkage") != self.pick.get("shrinkage", [None])[0]:
                found.pop()
        return found or [({}, self)]


class MiningSettings(Settings):
    """Hard negatives for pairs that have none, found among the other answers of the data (sentence-transformers' mine_hard_negatives)."""

    count: int = Field(1, ge=1, description="to a pair; a pair for which fewer are found is left out")
    model: str | None = Field(None, description="that finds them: a folder or a name on the Hub; the base when absent")
    range_min: int = Field(10, ge=0, description="nearest texts to skip, since they are likely to be right answers")
    range_max: int = Field(100, ge=1, description="how far down the list of nearest texts to look")
    relative_margin: float | None = Field(0.05, description="a negative must be less similar than the positive by at least this share")
    max_score: float | None = Field(None, description="cosine above which a text is taken for a right answer")
    min_score: float | None = Field(None, description="cosine below which a text is too easy")
    sampling: Literal["top", "random"] = Field("top", description="the nearest that are left, or drawn with the seed")


class LocalSource(Settings):
    """A local copy of a task's data whose split or columns are not called as where it is from."""

    data: str = Field(description="a file or folder below --data-root")
    split: str | None = Field(None, description="the task's own when absent")
    columns: dict[str, str] | None = Field(None, description="the task's own when absent")


class TaskSource(Settings):
    """One task: its type and the data it is trained on."""

    type: str = Field(description="a task type, see `selfpos tasks`")
    data: str | list[str] = Field(description="'corpus' (the embedded one), a local file or folder, or 'hub:NAME[:CONFIG][@REVISION]'")
    local: str | LocalSource | None = Field(None, description="the same data below --data-root, used when that is given")
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict, description="the type's column name: the data's column name")
    limit: int | None = Field(None, ge=1, description="records to keep, drawn with the run's seed")
    weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="shares of several `data` in the task's records: as many as there are without repeating any; all of all when absent",
    )
    duplicates: Literal["keep", "drop"] = Field("keep", description="records that occur before, in every column the same")
    streaming: bool = Field(
        False,
        description="read record by record into a file that is mapped into memory, for data larger than that; with limit, only its beginning",
    )
    prompts: str | dict[str, str] = Field(
        "", description="put before all texts, or under query and document before each side of a task that has them; kept in the model"
    )
    mine: MiningSettings | None = Field(None, description="hard negatives for a task that asks and answers, whose data has none")

    @property
    def local_copy(self) -> TaskSource | None:
        """The source with its local copy in place of its data, whose path is below --data-root; None where it has none."""
        if self.local is None:
            return None
        local = LocalSource(data=self.local) if isinstance(self.local, str) else self.local
        columns = self.columns if local.columns is None else local.columns
        there = {"data": local.data, "split": local.split or self.split, "columns": columns, "local": None, "weights": None}
        return self.model_copy(update=there)

    @model_validator(mode="after")
    def _fields_agree(self) -> TaskSource:
        if not isinstance(self.prompts, str) and (strange := set(self.prompts) - {"query", "document"}):
            raise ValueError(f"'prompts' are for query and document, found {', '.join(sorted(strange))}")
        if self.weights is not None and (isinstance(self.data, str) or len(self.data) != len(self.weights)):
            count = 1 if isinstance(self.data, str) else len(self.data)
            raise ValueError(f"'weights' must hold one number for each of the data, found {len(self.weights)} for {count}")
        return self


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
    """One merged model of a run: a method and its parameters, or one that searches (self-positioning and its like) and its settings."""

    method: str
    vectors: Literal["separate", "iterative", "bagging"] = Field("separate", description="the pipeline whose models are merged")
    weights: float | str | list[Any] | dict[str, Any] | None = Field(
        None, description="one for all vectors, or one per vector: numbers, ramps over depth, or rules by tensor name"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="the method's own parameters, see `selfpos methods`")
    positioning: PositioningSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _preset_of_the_method(cls, data: Any) -> Any:
        preset = LEARNED.get(str(data.get("method")), "default") if isinstance(data, dict) else "default"
        given = data.get("positioning") or {} if isinstance(data, dict) else {}
        return data if preset == "default" or not isinstance(given, dict) else {**data, "positioning": {"preset": preset, **given}}

    @model_validator(mode="after")
    def _positioning_belongs_to_its_method(self) -> MergeSettings:
        if self.positioning is not None and self.method not in LEARNED:
            raise ValueError(f"'positioning' belongs to methods that search ({', '.join(LEARNED)}), not to {self.method}")
        if self.method in LEARNED and (self.weights is not None or self.params):
            field = "weights" if self.weights is not None else "params"
            raise ValueError(
                f"'{field}' is for other methods: {self.method} finds the coefficients, and its settings go under 'positioning'"
            )
        own = LEARNED.get(self.method, "default")
        if self.positioning is not None and own != "default" and self.positioning.preset != own:
            raise ValueError(f"method {self.method} has a preset of its own: leave 'preset: {self.positioning.preset}' away")
        return self

    @property
    def search(self) -> PositioningSettings | None:
        """The settings of a method that searches for its coefficients; None for the others."""
        return self.positioning or PositioningSettings() if self.method in LEARNED else None


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
    cache: bool = Field(True, description="keep embeddings and tokens in the run's folder cache/, which may be removed at any time")


class OverlapSettings(Settings):
    """The overlap guard: whether training and probe records give test items of the run's evaluation tasks away."""

    remove: bool = Field(False, description="drop the records that do; the report is kept in either case")
    threshold: float | None = Field(0.8, gt=0, le=1, description="Jaccard similarity of near duplicates; null: only word for word")


class AnalysisSettings(Settings):
    """What `selfpos analyse` measures by."""

    records: Literal["probe", "training"] = Field("probe", description="whose gradients: of the held-out records, or of those trained on")
    batches: int = Field(8, ge=2, description="of each task, at each point; intervals need 3")
    batch_size: int = Field(32, ge=4)
    points: list[str] = Field(
        default_factory=list, description="where gradients are measured: base, and models of the run; all of them when absent"
    )
    memory: float = Field(1.0, gt=0, description="GiB of gradients held at once; less memory, more passes")
    arms: bool = Field(False, description="train small specialists on shares of the records, for equal epochs and for equal steps")
    arm_steps: int = Field(32, ge=4, description="of the longest arm")
    arm_shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.25, 0.5, 1.0], min_length=2, description="of the records that the longest arm sees once"
    )


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
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    joint: JointField | None = Field(default_factory=JointSettings, description="one setting, or name: setting of several rivals")
    iterative: IterativeSettings | None = None
    bagging: BaggingSettings | None = None
    budget: BudgetSettings | None = Field(None, description="absent: each pipeline as long as its own settings say")
    probe: ProbeSettings = Field(default_factory=ProbeSettings)
    merges: dict[Name, MergeSettings] = Field(min_length=1)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    overlap: OverlapSettings | None = Field(None, description="absent: not looked for")
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

    @property
    def trained(self) -> list[str]:
        """Every model that is trained, by name, in the order of tables."""
        first = list(self.stages)[: int(self.iterative is not None and self.iterative.steps in (None, self.training.steps))]  # a specialist
        return [*self.tasks, *self.joints, *(name for name in self.stages if name not in first), *self.bags]

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
        for task in self.probe.ratio:
            if task not in self.tasks:
                raise ValueError(f"probe.ratio: there is no task '{task}'{nearest(task, self.tasks)}")
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


def load_settings(path: Path, model: type[Model], what: str = "recipe") -> Model:
    """Read the YAML file at `path` as a `model`, called `what` in errors. Raises SelfposError naming each wrong field, and the nearest right name."""
    import yaml

    if not path.is_file():
        raise SelfposError(f"there is no {what} file {path}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SelfposError(f"{what} {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise SelfposError(f"{what} {path} must be a mapping of fields, found {type(data).__name__}")
    return validate(model, data, f"{what} {path}")


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
