"""How coefficients are searched for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from selfpos.recipe.settings import MOST_STEPS, MOST_TOKENS, Settings

PAPER: dict[str, Any] = {
    "search": "sgd", "space": "spherical", "steps": 1000, "batch_size": 32, "learning_rate": 5e-3,
    "penalty": 0.05, "temperature": 0.02, "batches": "single", "normalise": "none", "sts_loss": "infonce",
    "validation": 0.0, "compare": False,
}  # fmt: skip
"""Self Positioning as printed (Li et al., arXiv 2410.15035, section 3.3 and appendix). Its probe set has
16,000 records a task."""

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": PAPER,
    "lm-cocktail": {"search": "loss-softmax", "normalise": "none", "validation": 0.0, "compare": False},
    "layer-wise": {"search": "sgd", "granularity": "layer"},
    "cma-es": {"search": "cma-es"},
}
LEARNED = {
    "self-positioning": "default",
    "lm-cocktail": "lm-cocktail",
    "layer-wise": "layer-wise",
    "cma-es": "cma-es",
}
"""Merge methods that learn their coefficients on the probe set → their presets."""

READ_BY = {
    "rounds": ("linearised",),
    "separate": ("linearised",),
    "steps": ("sgd",),
    "learning_rate": ("sgd",),
    "evaluations": ("cma-es",),
    "validation": ("sgd", "cma-es", "loss-softmax"),
    "batch_size": ("sgd", "cma-es", "loss-softmax"),
    "batches": ("sgd", "cma-es"),
    "chunk": ("sgd",),
}
"""Setting → the searches that read it; all searches read the others."""

NO_GAIN = "the study found no gain"
FIXED = "its value is now fixed"
PAPERS = "the values of the paper are now fixed"
REMOVED: dict[str, tuple[Any, str]] = {
    "extrapolation": (0.02, NO_GAIN),
    "select": ("measure", FIXED),
    "refine": ("none", NO_GAIN),
    "refine_evaluations": (40, NO_GAIN),
    "pick": ({}, NO_GAIN),
    "balance": ("mean", NO_GAIN),
    "shrinkage": (1.0, NO_GAIN),
    "layer_groups": (4, NO_GAIN),
    "positive": (False, PAPERS),
    "order": ("given", PAPERS),
    "angles": ("global", PAPERS),
    "angle_gradient": (True, PAPERS),
    "in_batch_negatives": (True, FIXED),
    "sts_positive": (0.8, FIXED),
    "guard": (1.0, FIXED),
    "validation_records": (128, FIXED),
    "patience": (None, FIXED),
    "intervals": (20, FIXED),
    "radius": (0.5, FIXED),
    "early_share": (0.5, FIXED),
    "evaluate_every": (None, FIXED),
    "dropout": (False, FIXED),
    "sigma": (0.3, FIXED),
    "fitness": ("loss", FIXED),
    "softmax_temperature": (5.0, FIXED),
    "examples": (5, FIXED),
}
"""Settings of 0.1 that are gone → their default then, which asked for nothing, and why they went. Another
value is refused."""


PAPER_VALUES = {"extrapolation": 0.0, "select": "loss"}
"""What the paper's preset of 0.1 said about settings that it never read."""


REMOVED_VALUES = {
    "space": ("polar", "simplex"),
    "normalise": ("gain",),
    "granularity": ("kind", "layer-group"),
}
"""Setting → values of 0.1 that are gone because the study found no gain."""


class PositioningSettings(Settings):
    """Self Positioning: learn the coefficients of the task vectors from the merged model's losses on the
    probe set.

    `preset: paper` gives the settings of the paper; fields given beside it win. The other presets are other
    methods.
    """

    sts_positive: ClassVar[float] = 0.8
    """With `sts_loss: infonce`: pairs graded at least so high, on a scale of 0 to 1, are positives."""

    preset: Literal["default", "paper", "lm-cocktail", "layer-wise", "cma-es"] = Field(
        "default", description="search: settings that belong together, under which fields given here win"
    )

    temperature: float = Field(0.05, ge=1e-4, description="objective: of the tasks' losses")
    sts_loss: Literal["cosent", "infonce"] = Field(
        "cosent",
        description="objective: loss of graded pairs, CoSENT, or InfoNCE of the similar ones as in the paper",
    )
    normalise: Literal["none", "base"] = Field(
        "base", description="objective: unit of a task's loss, none or the base's loss"
    )
    ratios: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="objective: weight of a task in the mean; 1 when absent"
    )
    penalty: float = Field(0.0, ge=0, description="objective: μ of the paper's μ·λ")

    search: Literal["linearised", "sgd", "cma-es", "loss-softmax"] = Field(
        "linearised",
        description="search: linearised, by forward passes and folds; sgd, the paper's; or a rival's",
    )
    space: Literal["spherical", "linear"] = Field(
        "linear", description="search: spherical, the paper's chain of SLERPs; linear, free coefficients"
    )
    granularity: Literal["model", "layer", "tensor"] = Field(
        "model", description="search: which tensors share their coefficients"
    )
    separate: bool | None = Field(
        None,
        description="search: first make the vectors interfere less with each other (WUDI); when absent, of "
        "whole models that differ (cosines up to .5) and have matrices of up to a billion weights",
    )
    exclude: Annotated[
        list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
    ] = Field(
        default_factory=list,
        description="search: patterns of tensor names that stay at the base, as '*embeddings*'",
    )
    validation: float = Field(
        0.5,
        ge=0,
        le=0.75,
        description="search: share of the probe that sgd and cma-es hold out to select a point by; "
        "0: the last point is kept",
    )
    compare: bool = Field(
        True, description="search: measure base, specialists and one scale for all beside the point, too"
    )
    rounds: int = Field(2, ge=1, le=1000, description="search: rounds of linearised")
    steps: int = Field(200, ge=1, le=MOST_STEPS, description="search: steps of sgd")
    evaluations: int = Field(200, ge=4, le=MOST_STEPS, description="search: candidates of cma-es")
    learning_rate: float = Field(0.02, gt=0, description="search: of Adam in sgd")
    batch_size: int = Field(
        32, ge=4, description="search: records of a step of sgd; a mixed batch shares them among the tasks"
    )
    batches: Literal["mixed", "single"] = Field(
        "mixed", description="search: a step of sgd draws from all tasks, or from one task in turn"
    )

    chunk: int | None = Field(
        None,
        ge=1,
        description="run: texts whose activations are in memory at once (GradCache); a whole batch if "
        "absent; SPLADE and ColBERT take eight",
    )
    max_length: int | None = Field(
        None, ge=8, le=MOST_TOKENS, description="run: tokens per text; the model's limit when absent"
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        "auto", description="run: of the forward pass; auto is bf16 on GPUs that have it"
    )
    low_rank: bool = Field(
        True, description="run: keep LoRA adapters beside the base, when all vectors are adapters"
    )
    vectors_in: Literal["auto", "disk", "float32", "bf16"] = Field(
        "auto", description="run: keep the vectors memory-mapped, or on the device"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_first(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name in data.keys() & REMOVED.keys():
            value, reason = REMOVED[name]
            kept = PAPER_VALUES.get(name, value) if data.get("preset") == "paper" else value
            if data[name] not in (value, kept):
                raise ValueError(f"'{name}' was removed in 0.2: {reason}; leave it out")
        for name, values in REMOVED_VALUES.items():
            if data.get(name) in values:
                raise ValueError(f"'{name}: {data[name]}' was removed in 0.2: {NO_GAIN}; leave it out")
        data = {name: value for name, value in data.items() if name not in REMOVED}
        preset: dict[str, Any] = PRESETS.get(str(data.get("preset")), {})
        search = data.get("search", preset.get("search", "linearised"))
        # what the preset says about its own search does not hold for another
        preset = {name: value for name, value in preset.items() if search in READ_BY.get(name, (search,))}
        return {**preset, **data}

    @model_validator(mode="after")
    def _fields_agree(self) -> PositioningSettings:
        if self.search in ("linearised", "loss-softmax") and self.space != "linear":
            raise ValueError(f"search {self.search} works in space linear, not {self.space}")
        if self.search == "linearised" and self.precision == "bf16":
            raise ValueError(
                "search linearised takes small differences, which bf16 rounds away: leave precision out"
            )
        for name, searches in READ_BY.items():
            is_unused = name in self.model_fields_set and self.search not in searches
            if is_unused and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"'{name}' is read by search {' and '.join(searches)} only, "
                    f"and this search is {self.search}"
                )
        return self
