"""What can be known of how a model came to be, as types. Every field is optional: what is not known is None or empty, and stays off the card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from selfpos.publishing.shape import Shape

Kind = Literal["merged", "specialist", "joint", "model"]


@dataclass(frozen=True)
class Parent:
    """A model that another was made from: the base, or one of the merged. `interval` is the 90 % interval of a coefficient that was searched for."""

    name: str
    source: str | None = None
    repo: str | None = None
    revision: str | None = None
    hash: str | None = None
    licence: str | None = None
    coefficient: float | None = None
    norm: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class DataSource:
    """Training or probe data: the task it serves, its type, where it came from and how many records there were."""

    task: str
    type: str | None = None
    source: str | None = None
    records: int | None = None
    hash: str | None = None


@dataclass(frozen=True)
class Search:
    """How coefficients were found on a probe set, whose Hub id is `probe_set` where it was published. `losses` is per task:
    mean loss on the probe at the start and at the position kept; `verdict` is what the search said of its position beside its rivals.
    `picked` are the settings chosen on the validation part, `tried` the number of those that it chose from.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    probe: tuple[DataSource, ...] = ()
    probe_set: str | None = None
    losses: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)
    steps: int | None = None
    best_step: int | None = None
    seconds: float | None = None
    verdict: str | None = None
    picked: Mapping[str, Any] = field(default_factory=dict)
    tried: int = 0
    trajectory: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that the card, the metadata and the licence are made from.

    `base_coefficient` is that of a method which gives the base one of its own; `groups` holds coefficients per tensor or layer, the base's
    first where it has one, where they differ. `joints` are the run's joint rivals, `techniques` what training used that is to be cited,
    `overlap` the report of what training data shares with test data.
    """

    name: str
    kind: Kind
    shape: Shape
    base: Parent | None = None
    base_coefficient: float | None = None
    parents: tuple[Parent, ...] = ()
    groups: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    method: str | None = None
    reference: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    search: Search | None = None
    data: tuple[DataSource, ...] = ()
    mixture: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seconds: float | None = None
    seed: int | None = None
    device: str | None = None
    peak_memory: int | None = None
    parents_seconds: float | None = None
    created: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    recipe: str | None = None
    limitations: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    overlap: Mapping[str, Any] | None = None
    licence: str | None = None

    @property
    def adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter rather than a whole model."""
        return self.shape.adapter is not None

    @property
    def local_parents(self) -> list[Parent]:
        """The base and the parents that are not on the Hub."""
        return [parent for parent in (self.base, *self.parents) if parent is not None and not parent.repo]

    @property
    def dataset_repos(self) -> list[str]:
        """Hub ids of the data sets it was trained or searched on, each once, in order."""
        sources = [*self.data, *(self.search.probe if self.search else ())]
        names = [self.search.probe_set] if self.search and self.search.probe_set else []
        names += [part for entry in sources if entry.source for part in hub_datasets(entry.source)]
        return list(dict.fromkeys(names))


def hub_datasets(source: str) -> list[str]:
    """Hub ids named in a data source: `hub:NAME[:CONFIG][@REVISION]`, several of them separated by commas."""
    return re.findall(r"hub:([\w.-]+(?:/[\w.-]+)?)", source)
