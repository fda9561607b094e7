"""How much of a fine-tune is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from selfpos.recipe.settings import MOST_TOKENS, Settings


class RetainSettings(Settings):
    """The front between what a fine-tune learned and what it forgot, and the point that is taken."""

    domain: list[str] = Field(
        default_factory=list,
        description="What was learned: TYPE=FILE of records, a probe set, or a file or folder of plain "
        "texts, on which the fine-tune teaches [default: what finetune held out].",
    )
    general: list[str] = Field(
        default_factory=list,
        description="What must be kept: the same, or MTEB tasks, by their validation splits; on plain texts "
        "the base teaches [default: the docstrings on this machine].",
    )
    data_dir: Path | None = Field(
        None, description="Read the data of MTEB tasks from this folder, as eval-mteb does."
    )
    promise: Literal["none-worse"] | None = Field(
        None,
        description="What the point must keep: no general task is significantly below the base (a paired "
        "test, Holm) [default: none-worse].",
    )
    keep: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Instead: so large a share of the domain's gain, less a standard error, with the "
        "least loss.",
    )
    alpha: float | None = Field(
        None, ge=0, le=1.5, description="Instead: this share of the fine-tune, to look only."
    )
    space: Literal["line", "ramp"] = Field(
        "ramp",
        description="The points: one share of the fine-tune for all weights, or one that also rises or falls "
        "with depth.",
    )
    index: Literal["new", "base"] = Field(
        "new",
        description="What is searched: documents that the merged model embeds, or those that the base has "
        "embedded, which need not be embedded again.",
    )
    max_length: int | None = Field(None, ge=8, le=MOST_TOKENS, description="Tokens per text while searching.")
    seed: int | None = Field(
        None, ge=0, le=2**32 - 2, description="Of draws and resamples [default: 0, or that of the run]."
    )
    device: str | None = Field(None, description="Where the model runs [default: a GPU if there is one].")

    @property
    def seed_of_draws(self) -> int:
        """The seed, 0 where none is given."""
        return self.seed or 0

    @model_validator(mode="after")
    def _one_rule(self) -> RetainSettings:
        rules = [name for name in ("promise", "keep", "alpha") if getattr(self, name) is not None]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} exclude each other: each says which point to take")
        return self
