"""The merges of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from selfpos.recipe.positioning import LEARNED, PositioningSettings
from selfpos.recipe.settings import Settings


class MergeSettings(Settings):
    """One merged model of a run: a method and its parameters, or one that searches (self-positioning and its like) and its settings."""

    method: str
    vectors: Literal["separate", "iterative", "bagging"] = Field(
        "separate", description="the pipeline whose models are merged"
    )
    weights: float | str | list[Any] | dict[str, Any] | None = Field(
        None,
        description="one for all vectors, or one per vector: numbers, ramps over depth, or rules by tensor name",
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="the method's own parameters, see `selfpos methods`"
    )
    positioning: PositioningSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _preset_of_the_method(cls, data: Any) -> Any:
        preset = LEARNED.get(str(data.get("method")), "default") if isinstance(data, dict) else "default"
        given = data.get("positioning") or {} if isinstance(data, dict) else {}
        return (
            data
            if preset == "default" or not isinstance(given, dict)
            else {**data, "positioning": {"preset": preset, **given}}
        )

    @model_validator(mode="after")
    def _positioning_belongs_to_its_method(self) -> MergeSettings:
        if self.positioning is not None and self.method not in LEARNED:
            raise ValueError(
                f"'positioning' belongs to methods that search ({', '.join(LEARNED)}), not to {self.method}"
            )
        if self.method in LEARNED and (self.weights is not None or self.params):
            field = "weights" if self.weights is not None else "params"
            raise ValueError(
                f"'{field}' is for other methods: {self.method} finds the coefficients, and its settings go under 'positioning'"
            )
        own = LEARNED.get(self.method, "default")
        if self.positioning is not None and own != "default" and self.positioning.preset != own:
            raise ValueError(
                f"method {self.method} has a preset of its own: leave 'preset: {self.positioning.preset}' away"
            )
        return self

    @property
    def search(self) -> PositioningSettings | None:
        """The settings of a method that searches for its coefficients; None for the others."""
        return self.positioning or PositioningSettings() if self.method in LEARNED else None
