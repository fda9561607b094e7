"""Where a task's records are from, and which of them are held out for the probe."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from selfpos.recipe.settings import Name, Settings


class MiningSettings(Settings):
    """Hard negatives for pairs, mined among the other answers of the data by sentence-transformers."""

    count: int = Field(1, ge=1, description="to a pair; a pair with fewer is left out")
    model: str | None = Field(
        None, description="that embeds the texts: a folder or a name on the Hub; the base when absent"
    )
    range_min: int = Field(
        10, ge=0, description="nearest texts to skip, since they are likely to be right answers"
    )
    range_max: int = Field(100, ge=1, description="how far down the list of nearest texts to look")
    relative_margin: float | None = Field(
        0.05, description="a negative must be less similar than the positive by at least this share"
    )
    max_score: float | None = Field(None, description="cosine above which a text counts as a right answer")
    min_score: float | None = Field(None, description="cosine below which a text is too easy")
    sampling: Literal["top", "random"] = Field(
        "top", description="the nearest that remain, or drawn with the seed"
    )


class LocalSource(Settings):
    """A local copy of a task's data whose split or columns have other names."""

    data: str = Field(description="a file or folder below --data-root")
    split: str | None = Field(None, description="the task's when absent")
    columns: dict[str, str] | None = Field(None, description="the task's when absent")


class TaskSource(Settings):
    """One task: its type and the data it is trained on."""

    type: str = Field(description="a task type, see `selfpos tasks`")
    data: str | list[str] = Field(
        description="'corpus' (the embedded one; also 'corpus:names' and 'corpus:see-also'), a local file or "
        "folder, or 'hub:NAME[:CONFIG][@REVISION]'; in Python also a `datasets.Dataset`"
    )
    local: str | LocalSource | None = Field(
        None, description="the same data below --data-root, used when that is given"
    )
    split: str = Field("train", description="of the data")
    columns: dict[str, str] = Field(
        default_factory=dict, description="the type's column name: the data's column name"
    )
    limit: int | None = Field(None, ge=1, description="records to keep, drawn with the run's seed")
    weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="share of each of several `data` in the records, without repeats; all of all when absent",
    )
    duplicates: Literal["keep", "drop"] = Field(
        "keep", description="of records that are equal in every column"
    )
    streaming: bool = Field(
        False,
        description="read record by record, for data larger than memory; with limit, only its beginning",
    )
    prompts: str | dict[str, str] = Field(
        "",
        description="before all texts, or query and document before each side of the task; kept in the model",
    )
    mine: MiningSettings | None = Field(
        None, description="hard negatives for a task with question and answer, whose data has none"
    )

    @field_validator("data", mode="before")
    @classmethod
    def _as_text(cls, data: Any) -> Any:
        if isinstance(data, list):
            return [cls._as_text(part) for part in data]
        if isinstance(data, str | Path):
            return str(data)
        from selfpos.data.in_memory import kept

        return kept(data)

    @property
    def local_copy(self) -> TaskSource | None:
        """The source with its local copy, below --data-root, in place of its data; None without one."""
        if self.local is None:
            return None
        local = LocalSource(data=self.local) if isinstance(self.local, str) else self.local
        columns = self.columns if local.columns is None else local.columns
        there = {
            "data": local.data,
            "split": local.split or self.split,
            "columns": columns,
            "local": None,
            "weights": None,
        }
        return self.model_copy(update=there)

    @model_validator(mode="after")
    def _fields_agree(self) -> TaskSource:
        if not isinstance(self.prompts, str) and (strange := set(self.prompts) - {"query", "document"}):
            raise ValueError(f"'prompts' are for query and document, found {', '.join(sorted(strange))}")
        if self.weights is not None and (isinstance(self.data, str) or len(self.data) != len(self.weights)):
            count = 1 if isinstance(self.data, str) else len(self.data)
            raise ValueError(
                f"'weights' must hold one number for each of the data, found {len(self.weights)} for {count}"
            )
        return self


PROBE_RECORDS = 256
"""Records of a task that are held out for the probe set where nothing else is said."""


class ProbeSettings(Settings):
    """The probe set: records of each task, held out from its training data, or from another split of it."""

    per_task: int = Field(PROBE_RECORDS, ge=2, description="records of a task")
    ratio: dict[Name, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="task → share of the probe, 1 when absent; the largest is `per_task` records",
    )
    split: str | None = Field(
        None, description="a split of the tasks' data to draw from, as 'validation'; nothing is held out"
    )

    def counts(self, tasks: Iterable[str]) -> dict[str, int]:
        """The probe records of each of `tasks`."""
        shares = {task: self.ratio.get(task, 1.0) for task in tasks}
        return {
            task: max(2, round(self.per_task * share / max(shares.values())))
            for task, share in shares.items()
        }
