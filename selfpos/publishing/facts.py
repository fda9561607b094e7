"""What is known of how a model came to be: the one place that reads the provenance file `selfpos.json`.

Every field is optional. What the file does not say is None or empty here, and is left out of the card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from selfpos.publishing.shape import Shape, read_json, read_shape
from selfpos.storage.locate import DEFAULT_MODEL
from selfpos.storage.manifest import MANIFEST

Kind = Literal["merged", "specialist", "joint", "model"]


@dataclass(frozen=True)
class Parent:
    """A model that another was made from: the base, or one of the merged."""

    name: str
    source: str | None = None
    repo: str | None = None
    revision: str | None = None
    hash: str | None = None
    licence: str | None = None
    coefficient: float | None = None
    norm: float | None = None


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
    """How coefficients were found on a probe set. `losses` is per task: mean probe loss at the start and at the position kept."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    probe: tuple[DataSource, ...] = ()
    losses: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)
    steps: int | None = None
    best_step: int | None = None
    seconds: float | None = None
    trajectory: tuple[Mapping[str, Any], ...] = ()
    groups: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """All that the card, the metadata and the licence are made from."""

    name: str
    kind: Kind
    shape: Shape
    base: Parent | None = None
    parents: tuple[Parent, ...] = ()
    method: str | None = None
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
    created: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hash: str | None = None
    recipe: str | None = None
    limitations: tuple[str, ...] = ()
    licence: str | None = None

    @property
    def adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter rather than a whole model."""
        return self.shape.adapter is not None

    @property
    def dataset_repos(self) -> list[str]:
        """Hub ids of the data sets it was trained or searched on, each once, in order."""
        sources = [*self.data, *(self.search.probe if self.search else ())]
        names = [part for entry in sources if entry.source for part in hub_datasets(entry.source)]
        return list(dict.fromkeys(names))


def read_facts(folder: Path) -> Facts:
    """Gather what the model folder and its `selfpos.json` say. A folder without that file yields its shape and nothing else.

    Raises SelfposError where `folder` is no model, or where one of its JSON files is damaged.
    """
    shape = read_shape(folder)
    told = read_json(folder / MANIFEST)
    merge, training = _mapping(told, "merge"), _mapping(told, "training")
    adapter_base = (shape.adapter or {}).get("base_model_name_or_path")
    base = _parent(told.get("base") or adapter_base)
    return Facts(
        name=str(told.get("name") or folder.resolve().name),
        kind=_kind(told, merge, training),
        shape=shape,
        base=base,
        parents=_parents(merge, told),
        method=merge.get("method"),
        params=_mapping(merge, "params"),
        dtype=merge.get("dtype"),
        search=_search(folder, _mapping(told, "positioning")) if told.get("positioning") else None,
        data=_data(_mapping(training, "tasks") or _mapping(training, "data")),
        mixture=training.get("mixture"),
        training=_mapping(training, "settings"),
        steps=training.get("steps"),
        seconds=training.get("seconds") or merge.get("seconds") or told.get("seconds"),
        seed=_first(told.get("seed"), training.get("seed"), merge.get("seed")),
        device=_first(told.get("device"), training.get("device")),
        created=told.get("created"),
        versions=_mapping(told, "versions"),
        hash=told.get("hash"),
        recipe=_recipe(folder, told),
        limitations=tuple(told.get("limitations") or ()),
        licence=told.get("licence") or told.get("license"),
    )


def _kind(told: Mapping[str, Any], merge: Mapping[str, Any], training: Mapping[str, Any]) -> Kind:
    if told.get("kind") in ("merged", "specialist", "joint"):
        return told["kind"]
    if merge:
        return "merged"
    tasks = _mapping(training, "tasks") or _mapping(training, "data")
    return "joint" if len(tasks) > 1 else "specialist" if training else "model"


def _parents(merge: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[Parent, ...]:
    entries: Sequence[Any] = merge.get("sources") or ()
    coefficients = merge.get("coefficients") or _mapping(told, "positioning").get("coefficients") or merge.get("weights") or ()
    found = []
    for index, entry in enumerate(entries):
        given = coefficients[index] if isinstance(coefficients, list) and index < len(coefficients) else None
        parent = _parent(entry, given if isinstance(given, int | float) else None)
        if parent is not None:
            found.append(parent)
    return tuple(found)


def _parent(entry: Any, coefficient: float | None = None) -> Parent | None:
    """A parent from its record, or from its bare name. Where a Hub snapshot's path is recorded, the path tells repository and commit."""
    if not entry:
        return None
    record: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {"name": str(entry), "source": str(entry)}
    source = record.get("source") or record.get("path") or record.get("name")
    repo, revision = record.get("repo"), record.get("revision")
    if snapshot := re.search(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})", str(source)):
        repo, revision = repo or f"{snapshot[1]}/{snapshot[2]}", revision or snapshot[3]
    name = str(record.get("name") or Path(str(source)).name)
    if not repo and name.removeprefix("sentence-transformers/") == DEFAULT_MODEL:
        repo = f"sentence-transformers/{DEFAULT_MODEL}"
    coefficient = record.get("coefficient", coefficient)
    return Parent(
        name, source, repo, revision, record.get("hash"), record.get("licence") or record.get("license"), coefficient, record.get("norm")
    )


def _data(tasks: Mapping[str, Any]) -> tuple[DataSource, ...]:
    found = []
    for name, entry in tasks.items():
        record = entry if isinstance(entry, Mapping) else {}
        source = record.get("source") or record.get("data") or record.get("description")
        text = ", ".join(source) if isinstance(source, list) else source
        found.append(DataSource(name, record.get("type"), text, record.get("records"), record.get("hash")))
    return tuple(found)


def _search(folder: Path, told: Mapping[str, Any]) -> Search:
    before, after = _mapping(told, "losses_before"), _mapping(told, "losses")
    groups = told.get("groups") or {}
    return Search(
        settings=_mapping(told, "settings"),
        parameters=_mapping(told, "parameters"),
        probe=_data(_mapping(_mapping(told, "probe"), "tasks") or _mapping(told, "probe")),
        losses={task: (before.get(task), value) for task, value in after.items() if isinstance(value, int | float)},
        steps=told.get("steps"),
        best_step=told.get("step"),
        seconds=told.get("seconds"),
        trajectory=_trajectory(folder, told.get("trajectory")),
        groups={name: tuple(values) for name, values in groups.items()} if isinstance(groups, Mapping) else {},
    )


def _trajectory(folder: Path, told: Any) -> tuple[Mapping[str, Any], ...]:
    """The rows of the search's trajectory, kept in the manifest itself or in a JSON Lines file inside the model folder."""
    import json

    if isinstance(told, list):
        return tuple(row for row in told if isinstance(row, Mapping))
    file = folder / Path(str(told)).name if told else folder / "trajectory.jsonl"
    if not file.is_file():
        return ()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return tuple(row for row in rows if isinstance(row, Mapping))


def _recipe(folder: Path, told: Mapping[str, Any]) -> str | None:
    """The recipe as YAML text: the file beside the weights, or what the manifest holds."""
    import yaml

    file = folder / "recipe.yaml"
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    recipe = told.get("recipe")
    if isinstance(recipe, Mapping):
        return str(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)).strip()
    return None


def hub_datasets(source: str) -> list[str]:
    """Hub ids named in a data source: `hub:NAME[:CONFIG][@REVISION]`, several of them separated by commas."""
    return re.findall(r"hub:([\w.-]+(?:/[\w.-]+)?)", source)


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
