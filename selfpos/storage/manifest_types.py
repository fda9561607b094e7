"""The types of fields that are read again, of manifests and files beside them: others may have made them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict


def _even(rows: dict[str, list[float]]) -> dict[str, list[float]]:
    lengths = {len(row) for row in rows.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError("its rows are empty or not of one length")
    return rows


Rows = Annotated[dict[str, list[float]], AfterValidator(_even)]
Pair = Annotated[tuple[float, float], Strict(False)]  # a list in JSON
Share = Annotated[tuple[float, Pair], Strict(False)]  # with its interval


class Fields(BaseModel):
    """Further fields may be anything; those named are of exactly their types."""

    model_config = ConfigDict(extra="allow", strict=True)


class Parent(Fields):
    """A model that another was made from."""

    name: str | None = None
    path: str | None = None
    hash: str | None = None
    repo: str | None = None
    revision: str | None = None
    licence: str | None = None


class Source(Parent):
    """A model that was merged; where it stands for the base, `base` is the hash of its own."""

    name: str = Field(min_length=1)
    base: str | None = None


class Merge(Fields):
    """How models were merged."""

    method: str | None = None
    sources: list[Source] = []
    params: dict[str, Any] | None = None
    defaults: dict[str, Any] | None = None
    reference: str | None = None
    coefficients: list[float] | Rows | None = None


class Data(Fields):
    """One or several sources of records."""

    data: str | list[str] | None = None


class Finetune(Fields):
    """What a model was trained on."""

    source: Data = Data()
    hash: str | None = None
    probe: int | None = None
    seed: int | None = None


class Task(Fields):
    """Records that a model was trained or positioned on."""

    type: str | None = None
    records: int | None = None
    hash: str | None = None


class Positioning(Fields):
    """How coefficients were found."""

    probe: dict[str, Task] | None = None
    settings: dict[str, Any] | None = None
    coefficients: list[float] | None = None
    tensors: Rows | None = None
    intervals: list[Pair] | None = None
    losses: dict[str, Any] | None = None
    step: int | None = None
    seconds: float | None = None


class Step(Fields):
    """A step of a search, a line of its trajectory."""

    step: int | None = None
    scale: float | None = None
    coefficients: list[float] | None = None
    losses: dict[str, float] | None = None
    validation: dict[str, float] | None = None


class Place(Fields):
    """A point of the front of `retain`."""

    line: str
    alpha: float
    ramp: float
    domain: float
    general: float
    kept: float
    undone: float | None


class Drop(Fields):
    """A task below the base."""

    task: str
    difference: float
    p: float
    worst: float | None = None


class Retain(Fields):
    """What `retain` found."""

    base: Place
    tuned: Place
    chosen: Place
    front: list[Place] = Field(min_length=2)
    kept: Share
    undone: Share | None
    drops: list[Drop]
    worst: Drop | None = None
    tolerated: dict[str, float] | None = None
    index: dict[str, float] | None = None
    warnings: list[str]


class Published(Fields):
    """What publishing adds."""

    probe_set: str | None = None


class Manifest(Fields):
    """What made a folder."""

    kind: str | None = None
    name: str | None = None
    licence: str | None = None
    base: Parent | None = None
    merge: Merge | None = None
    finetune: Finetune | None = None
    tasks: dict[str, Task] | None = None
    data: dict[str, Any] | None = None
    positioning: Positioning | None = None
    retain: Retain | None = None
    published: Published | None = None
    settings: dict[str, Any] | None = None
    mixture_settings: dict[str, Any] | None = None
    seconds: float | None = None
    peak_memory_bytes: float | None = None
    versions: dict[str, Any] | None = None


class SharedItems(Fields):
    """How many test items of a task a source holds."""

    exact: int
    near: int
    items: int


class OverlapSource(Fields):
    """A source of records that was searched for test items."""

    tasks: dict[str, SharedItems]


class OverlapSettings(Fields):
    """How test items were searched for."""

    threshold: float | None = None


class OverlapReport(Fields):
    """What `selfpos overlap` found."""

    sources: dict[str, OverlapSource]
    settings: OverlapSettings | None = None
    unchecked: list[str] | None = Field(None, alias="not checked")
