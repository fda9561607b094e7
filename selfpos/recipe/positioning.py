"""How coefficients are searched for."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from selfpos.recipe.settings import Settings

PAPER: dict[str, Any] = {
    "search": "sgd", "space": "spherical", "steps": 1000, "batch_size": 32, "learning_rate": 5e-3, "penalty": 0.05, "temperature": 0.02,
    "batches": "single", "normalise": "none", "sts_loss": "infonce", "validation": 0.0, "select": "loss", "extrapolation": 0.0,
    "positive": False, "compare": False,
}  # fmt: skip
"""Self Positioning as printed (Li et al., arXiv 2410.15035, section 3.3 and appendix), with the probe drawn 16,000 records a task."""

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": PAPER,
    "lm-cocktail": {
        "search": "loss-softmax",
        "normalise": "none",
        "validation": 0.0,
        "extrapolation": 0.0,
        "compare": False,
    },
    "layer-wise": {"search": "sgd", "granularity": "layer"},
    "cma-es": {"search": "cma-es"},
}
LEARNED = {
    "self-positioning": "default",
    "lm-cocktail": "lm-cocktail",
    "layer-wise": "layer-wise",
    "cma-es": "cma-es",
}
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
        "linearised",
        description="linearised: trust region by forward passes; sgd: the paper's; the others for comparison",
    )
    space: Literal["spherical", "polar", "linear", "simplex"] = Field(
        "linear",
        description="spherical: the paper's chain of SLERPs; polar: the same without an order; linear: free; simplex: shares of 1",
    )
    granularity: Literal["model", "kind", "layer-group", "layer", "tensor"] = Field(
        "model", description="what shares its coefficients"
    )
    layer_groups: int = Field(
        4, ge=1, description="groups of consecutive layers, for granularity layer-group"
    )
    shrinkage: float = Field(
        1.0,
        ge=0,
        description="ρ, the pull of finer coefficients (not of λ) towards the model's: ρ·Σ share·offset²",
    )
    angles: Literal["global", "tensor"] = Field(
        "global", description="one angle between two vectors, or one for each tensor"
    )
    angle_gradient: bool = Field(
        True,
        description="whether the angle to the chain so far, which depends on its a_i, is differentiated too",
    )
    order: Literal["given", "longest-first", "shortest-first"] = Field(
        "given", description="of the vectors in the chain"
    )
    positive: bool = Field(True, description="keep every a_i of the chain above zero")
    exclude: Annotated[
        list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
    ] = Field(
        default_factory=list, description="patterns of tensor names that stay at the base, as '*embeddings*'"
    )

    temperature: float = Field(0.05, gt=0)
    in_batch_negatives: bool = Field(True, description="false: only a record's own negatives count")
    sts_loss: Literal["cosent", "infonce"] = Field(
        "cosent",
        description="of graded pairs on the probe: CoSENT, or InfoNCE of the similar ones, which is the paper's one loss for all tasks",
    )
    sts_positive: float = Field(
        0.8, gt=0, le=1, description="with sts_loss infonce: pairs graded at least so high are positives"
    )
    normalise: Literal["none", "base", "gain"] = Field(
        "base",
        description="unit of a task's loss: its own, the base's loss, or what the best specialist gains over the base",
    )
    balance: Literal["mean", "worst", "uncertainty"] = Field(
        "mean", description="how the tasks' losses become one"
    )
    ratios: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="weight of a task in the mean; 1 when absent"
    )
    penalty: float = Field(0.0, ge=0, description="μ of the paper's μ·λ")
    extrapolation: float = Field(
        0.02, ge=0, description="price ν of coefficients above 1 or below 0: ν·mean of their squared excess"
    )

    validation: float = Field(
        0.5,
        ge=0,
        le=0.75,
        description="share of the probe held out to choose by; 0: all of it is searched on, the last point is kept",
    )
    validation_records: int = Field(
        128, ge=2, description="records of each task, at most, that a point is judged by"
    )
    pick: dict[
        Literal["granularity", "shrinkage", "penalty", "extrapolation"],
        Annotated[list[Any], Field(min_length=1)],
    ] = Field(
        default_factory=dict,
        description="values to choose from on the validation part, a search for each combination: {granularity: [model, layer]}",
    )
    select: Literal["measure", "loss"] = Field(
        "measure", description="choose by each task's own measure, or by the loss"
    )
    guard: float = Field(
        1.0, ge=0, description="weight of what tasks lose against the base, when choosing by the measure"
    )
    patience: int | None = Field(
        None, ge=1, description="judgements without a better point before the search ends"
    )
    compare: bool = Field(
        True,
        description="measure the base, the specialists and tuned task arithmetic on the validation part as well",
    )
    intervals: int = Field(
        20, ge=0, description="resamples behind the intervals of linearised coefficients; 0: none"
    )

    rounds: int = Field(3, ge=1, description="of the linearised search")
    radius: float = Field(0.5, gt=0, description="of its first trust region, in coefficients")
    early_share: float = Field(
        0.5, gt=0, le=1, description="share of the records that its first round looks at"
    )

    steps: int = Field(200, ge=1, description="of sgd")
    batch_size: int = Field(
        32, ge=4, description="probe records an sgd step; a mixed batch shares them evenly among the tasks"
    )
    batches: Literal["mixed", "single"] = Field(
        "mixed", description="whether an sgd step looks at all tasks, or at one of them in turn"
    )
    learning_rate: float = Field(0.02, gt=0, description="of Adam")
    evaluate_every: int | None = Field(
        None, ge=1, description="steps between judgements; a twentieth of the steps when absent"
    )
    chunk: int | None = Field(
        None,
        ge=1,
        description="texts whose activations are in memory at once (GradCache); all of a batch when absent",
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
    precision: Literal["auto", "float32", "bf16"] = Field(
        "auto", description="of the forward pass; auto: bf16 on GPUs that have it"
    )
    low_rank: bool = Field(
        True,
        description="run LoRA adapters beside the base instead of merging them, when all vectors are such",
    )
    vectors_in: Literal["auto", "disk", "float32", "bf16"] = Field(
        "auto", description="where vectors are kept: memory-mapped, or on the device"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_first(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        preset: dict[str, Any] = PRESETS.get(str(data.get("preset")), {})
        own = preset.get("search", "")
        if data.get("search", own) != own:
            # what the preset says of its own search does not go for another
            preset = {name: value for name, value in preset.items() if name not in READ_BY.get(own, ())}
        picked = data.get("pick")
        if twice := [name for name in picked if name in data] if isinstance(picked, dict) else []:
            raise ValueError(f"'{twice[0]}' is both given and to be picked; keep one")
        return {**preset, **data}

    @model_validator(mode="after")
    def _fields_agree(self) -> PositioningSettings:
        if self.search in ("linearised", "loss-softmax") and self.space != "linear":
            raise ValueError(f"search {self.search} works in space linear, not {self.space}")
        if self.batches == "single" and self.search == "sgd" and self.balance != "mean":
            raise ValueError(f"balance {self.balance} compares tasks, so it needs mixed batches")
        if self.chunk and self.dropout:
            raise ValueError(
                "chunk embeds every text twice, which dropout would make differ; switch one of them off"
            )
        for search, fields in READ_BY.items():
            idle = [
                name
                for name in fields
                if name in self.model_fields_set
                and getattr(self, name) != type(self).model_fields[name].default
            ]
            if idle and search != self.search:
                raise ValueError(
                    f"'{idle[0]}' is for search {search}, and this one is {self.search}, which does not look at it"
                )
        if self.fitness == "measure" and not self.validation:
            raise ValueError("fitness measure needs a validation part; give 'validation' a share")
        if self.refine != "none" and not (self.validation and self.select == "measure"):
            raise ValueError(
                "refine goes by the measures on a validation part; give 'validation' a share and 'select: measure'"
            )
        if self.pick and not self.validation:
            raise ValueError("pick chooses on the validation part; give 'validation' a share")
        if self.pick and self.search == "loss-softmax":
            raise ValueError("search loss-softmax looks at nothing that could be picked")
        self.candidates()
        return self

    def candidates(self) -> list[tuple[dict[str, Any], PositioningSettings]]:
        """What `pick` is to choose from: each combination of its values, and the settings with it; these settings alone without a `pick`.

        Of those that come to the same the first stands for all: where all tensors share their coefficients there is nothing to shrink.
        Raises ValueError for a value that its setting cannot have.
        """
        found: list[tuple[dict[str, Any], PositioningSettings]] = []
        seen: list[PositioningSettings] = []
        for values in itertools.product(*self.pick.values()) if self.pick else ():
            chosen = dict(zip(self.pick, values, strict=True))
            given = {name: getattr(self, name) for name in self.model_fields_set} | {"pick": {}}
            try:
                made = type(self).model_validate(given | chosen)
            except ValidationError as error:
                wrong = error.errors()[0]
                raise ValueError(
                    f"pick, {'.'.join(map(str, wrong['loc'])) or 'settings'}: {wrong['msg']}"
                ) from None
            same = made.model_copy(update={"shrinkage": 0.0}) if made.granularity == "model" else made
            if same not in seen:
                seen.append(same)
                found.append((chosen, made))
        return found or [({}, self)]
