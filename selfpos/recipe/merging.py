"""The options of a merge, and the merges of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from selfpos.errors import SelfposError, unknown
from selfpos.recipe.positioning import LEARNED, PositioningSettings
from selfpos.recipe.retain import RetainSettings
from selfpos.recipe.settings import Name, Settings

MEGABYTE = 1 << 20
RETAIN = "retain"
"""The method of a run's merge that keeps as much of its vectors as a promise allows (`selfpos retain`)."""


class MergeOptions(Settings):
    """The options of a merge: keywords of `merge` and `plan`, of the command line, and of manifests."""

    weights: Any = Field(
        None,
        description="One for all vectors, or one per vector: 0.5, a ramp over depth 0.2..0.8, "
        "or '{layers.0-5: 0.3, default: 1}'.",
    )
    params: dict[str, Any] | None = Field(None, description="The method's parameters, see `selfpos methods`.")
    seed: int = Field(0, ge=0, le=2**32 - 2, description="For methods that draw at random.")
    dtype: str | None = Field(
        None,
        description="Of the weights written: float32, bfloat16, float16 or float64 "
        "[default: the widest of base and vectors, tensor by tensor].",
    )
    shard_size: int = Field(
        5_000_000_000,
        ge=1,
        description="MB that one weight file may have",
        json_schema_extra={"unit": 1_000_000},
    )
    device: str = Field("cpu", description="Where the arithmetic runs: cpu, cuda, cuda:1, …")
    output: Literal["model", "adapter"] = Field(
        "model", description="A whole model, or one LoRA adapter where all vectors are adapters."
    )
    rank: int | None = Field(None, ge=1, description="With --adapter: truncate to this rank.")
    take_from: str | None = Field(
        None, description="'base' or a vector's name: take what differs (tokenizer, pooling, shapes) from it."
    )
    pooling: Literal["mean", "cls", "lasttoken", "max"] | None = Field(
        None, description="Of a base that is a plain transformers model, which does not say how it is pooled."
    )
    threads: int | None = Field(None, ge=1, description="At most so many [default: one per core].")
    budget: int = Field(
        512 * MEGABYTE,
        ge=1,
        description="MB that may be used beyond the runtime: fewer threads run, or nothing is merged",
        json_schema_extra={"unit": MEGABYTE},
    )
    allow_code: bool = Field(False, description="Keep Python code that the base brings along.")
    statistics: Mapping[str, Sequence[Path]] | None = Field(
        None, description="Files with data statistics by name, one per vector."
    )
    base_name: str | None = Field(None, description="What the manifest calls the base.")
    names: Sequence[str] | None = Field(None, description="What to call the vectors.")
    provenance: dict[str, Any] | None = Field(None, description="Added to the manifest.")

    RECORDED: ClassVar = {
        **{name: name for name in ("weights", "params", "seed")},
        "dtype": "dtype_given",
        **{name: name for name in ("shard_size", "device", "output", "rank", "take_from", "pooling")},
    }
    """The options that decide the bytes of the output → the manifest's field that records each."""

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, value: str | None) -> str | None:
        from selfpos.storage.numbers import NAMES

        if value is not None and value not in NAMES:
            raise unknown("number format", value, NAMES)
        return value

    @model_validator(mode="after")
    def _rank_of_an_adapter(self) -> MergeOptions:
        if self.rank is not None and self.output != "adapter":
            raise SelfposError("a rank is for the output 'adapter' only; omit it for a whole model")
        return self

    def recorded(self) -> dict[str, Any]:
        """What the manifest records of the options, as they were given."""
        record = {field: getattr(self, name) for name, field in self.RECORDED.items()}
        return record | {"params": dict(self.params or {})}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> dict[str, Any]:
        """The options that `recorded` wrote, as keywords."""
        options = {name: record.get(field) for name, field in cls.RECORDED.items()}
        return {name: value for name, value in options.items() if value is not None}


class SweptMerge(Settings):
    """One merge of a sweep: a method and its settings, or the coefficients that a search wrote."""

    method: str | None = Field(None, description="a method of `selfpos methods` that needs no data")
    weights: int | float | str | list[Any] | dict[str, Any] | None = Field(
        None, description="as those of a merge"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="the method's parameters")
    seed: int | None = Field(None, ge=0, le=2**32 - 2, description="for methods that draw at random")
    coefficients: Path | None = Field(None, description="a file OUT.coefficients.json, in place of a method")

    @model_validator(mode="after")
    def _method_or_coefficients(self) -> SweptMerge:
        if (self.method is None) == (self.coefficients is None):
            raise ValueError("give a method, or a file of coefficients")
        if self.coefficients is not None and self.model_fields_set != {"coefficients"}:
            raise ValueError("coefficients say all of a merge; omit the other fields")
        return self


class Sweep(Settings):
    """Several merges of the same models, by the names of their outputs: the file of `merge --sweep`."""

    merges: dict[Name, SweptMerge] = Field(min_length=1, max_length=1000)


class MergeSettings(Settings):
    """One merged model of a run: a method and its parameters, or a search and its settings."""

    method: str
    vectors: Literal["separate", "iterative", "bagging"] = Field(
        "separate", description="the pipeline whose models are merged"
    )
    weights: float | str | list[Any] | dict[str, Any] | None = Field(
        None,
        description="one for all vectors, or one per vector: numbers, ramps over depth, or rules by name",
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="the method's own parameters, see `selfpos methods`"
    )
    positioning: PositioningSettings | None = None
    retain: RetainSettings | None = Field(
        None, description=f"of method {RETAIN}; its domain is the probe set when absent"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_of_the_method(cls, data: Any) -> Any:
        preset = LEARNED.get(str(data.get("method")), "default") if isinstance(data, dict) else "default"
        positioning = data.get("positioning") or {} if isinstance(data, dict) else {}
        return (
            data
            if preset == "default" or not isinstance(positioning, dict)
            else {**data, "positioning": {"preset": preset, **positioning}}
        )

    @model_validator(mode="after")
    def _positioning_belongs_to_its_method(self) -> MergeSettings:
        if self.positioning is not None and self.method not in LEARNED:
            raise ValueError(
                f"'positioning' belongs to methods that search ({', '.join(LEARNED)}), not to {self.method}"
            )
        if self.retain is not None and self.method != RETAIN:
            raise ValueError(f"'retain' belongs to method {RETAIN}, not to {self.method}")
        if self.method in (*LEARNED, RETAIN) and (self.weights is not None or self.params):
            field = "weights" if self.weights is not None else "params"
            raise ValueError(
                f"'{field}' is for other methods: {self.method} finds the coefficients, and its settings go "
                f"under '{'positioning' if self.method in LEARNED else RETAIN}'"
            )
        preset = LEARNED.get(self.method, "default")
        if self.positioning is not None and preset != "default" and self.positioning.preset != preset:
            raise ValueError(
                f"method {self.method} has its own preset: omit 'preset: {self.positioning.preset}'"
            )
        return self

    @property
    def search(self) -> PositioningSettings | None:
        """The settings of a method that searches for its coefficients; None for the others."""
        return self.positioning or PositioningSettings() if self.method in LEARNED else None
