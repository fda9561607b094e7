"""The types of a manifest's fields that are read again: another may have written them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


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
    """A model that was merged."""

    name: str


class Merge(Fields):
    """How models were merged."""

    method: str | None = None
    sources: list[Source] = []
    params: dict[str, Any] | None = None
    defaults: dict[str, Any] | None = None
    reference: str | None = None


class Finetune(Fields):
    """What a model was trained on."""

    source: dict[str, Any] = {}
    hash: str | None = None
    probe: int | None = None
    seed: int | None = None


class Positioning(Fields):
    """How coefficients were found."""

    probe: dict[str, dict[str, Any]] | None = None
    settings: dict[str, Any] | None = None


class Manifest(Fields):
    """What made a folder."""

    kind: str | None = None
    name: str | None = None
    licence: str | None = None
    base: Parent | None = None
    merge: Merge | None = None
    finetune: Finetune | None = None
    tasks: dict[str, dict[str, Any]] | None = None
    data: dict[str, Any] | None = None
    positioning: Positioning | None = None
    versions: dict[str, Any] | None = None
