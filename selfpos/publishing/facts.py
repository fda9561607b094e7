"""What is known of how a model was made, from its folder, its `selfpos.json` and its run; else empty."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selfpos.positioning.methods import METHODS
from selfpos.publishing.sources import OVERLAP, ModelRun, ModelSummary, read_overlap, read_summary, run_of
from selfpos.recipe import LEARNED
from selfpos.recipe.recipe import recipe_for_others
from selfpos.storage.documents import parse_json, read_text
from selfpos.storage.inside import leads_out
from selfpos.storage.locate import DEFAULT_MODEL, hub_snapshot
from selfpos.storage.manifest import read_manifest

TRAJECTORY = "trajectory.jsonl"  # of the search, in a published model
SEPARATED = {
    "tsv-m": ", its weight matrices made orthogonal to those of the others (TSV-M)",
    "wudi": ", its weight matrices changed so that they interfere less with those of the others (WUDI)",
}
"""Method that applies coefficients of separated vectors → what it does to a task vector."""
PUBLISHED = "published"  # the part of selfpos.json that publishing adds; the weight files do not hold it


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub: repository and commit, which is None while it is still to be made."""

    repo: str
    revision: str | None


@dataclass(frozen=True)
class Parent:
    """A model that another was made from: the base, or one of the merged models. None is unknown.

    `source` is the recorded folder or name, `repo` and `revision` where it is on the Hub, `hash` that of its
    content. `interval` is the 90 % interval of a coefficient that was searched for.
    """

    name: str
    source: str | None = None
    repo: str | None = None
    revision: str | None = None
    hash: str | None = None
    coefficient: float | None = None
    interval: Sequence[float] | None = None

    @property
    def folder(self) -> Path | None:
        """The recorded folder, if it is on this disk."""
        return Path(self.source) if self.source and Path(self.source).is_dir() else None


@dataclass(frozen=True)
class DataSource:
    """Training or probe data of a task: type, source, number of records and their hash; None is unknown."""

    task: str
    type: str | None = None
    source: str | None = None
    records: int | None = None
    hash: str | None = None


@dataclass(frozen=True)
class Facts:
    """All that the card, its metadata and the licence are made from; what is unknown is None or empty.

    `record` is the content of `selfpos.json`, `run` the run that the model is part of. `trajectory` are the
    steps of the search, `probe_set` is the Hub id of the probe set, `recipe` the run's as YAML text,
    `overlap` the report on test items in training data.
    """

    name: str
    summary: ModelSummary
    record: Mapping[str, Any] = field(default_factory=dict)
    run: ModelRun | None = None
    base: Parent | None = None
    parents: tuple[Parent, ...] = ()
    data: tuple[DataSource, ...] = ()
    probe: tuple[DataSource, ...] = ()
    probe_set: str | None = None
    trajectory: tuple[Mapping[str, Any], ...] = ()
    recipe: str | None = None
    overlap: Mapping[str, Any] | None = None

    @property
    def merge(self) -> Mapping[str, Any]:
        """The record of the merge."""
        return self.record.get("merge") or {}

    @property
    def search(self) -> Mapping[str, Any]:
        """The record of the search for coefficients."""
        return self.record.get("positioning") or {}

    @property
    def kind(self) -> str:
        """`merged`, `specialist`, `joint`, or `model` where nothing is on record."""
        kind = "merged" if self.merge else self.record.get("kind")
        return kind if kind in ("merged", "specialist", "joint") else "model"

    @property
    def adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter rather than a whole model."""
        return self.summary.adapter is not None

    @property
    def method(self) -> str | None:
        """The merge method; where its coefficients were searched for, the search."""
        method = self.merge.get("method")
        applied = method in (None, "linear", *SEPARATED)
        return _search_method(self.search) if self.search and applied else method

    @property
    def separation(self) -> str:
        """What a search did to the task vectors before it looked for coefficients; empty for nothing."""
        return SEPARATED.get(str(self.merge.get("method")), "") if self.search.get("separated") else ""

    @property
    def reference(self) -> str | None:
        """The address of the method's paper; None where it has none."""
        reference = str(self.merge.get("reference"))
        if self.search:
            reference = METHODS[_search_method(self.search)].reference
        return reference if re.fullmatch(r"https?://[^\s()<>]+", reference) else None

    @property
    def groups(self) -> Mapping[str, Sequence[float]]:
        """Coefficients by tensor or layer where they differ, the base's first if it has one."""
        coefficients = self.merge.get("coefficients") or self.search.get("tensors")
        return coefficients if isinstance(coefficients, Mapping) else {}

    @property
    def base_coefficient(self) -> float | None:
        """The base's coefficient, of a method that gives it one: it comes before the parents'."""
        coefficients = self.merge.get("coefficients")
        has_base = isinstance(coefficients, list) and len(coefficients) == len(self.parents) + 1
        return coefficients[0] if isinstance(coefficients, list) and has_base else None

    @property
    def seconds(self) -> float | None:
        """Seconds of training or merging; None where unknown."""
        return self.record.get("seconds") or (self.run.seconds if self.run else None)

    @property
    def seed(self) -> int | None:
        """The seed of the training, search or merge."""
        seeds = (part.get("seed") for part in (self.record, self.search, self.merge))
        return next((seed for seed in seeds if seed is not None), None)

    @property
    def techniques(self) -> list[str]:
        """What the training used, by the names in `citations.bib`."""
        settings, mixture = self.record.get("settings") or {}, self.record.get("mixture_settings") or {}
        used = {
            "cosent": "sts" in {entry.type for entry in self.data} and settings.get("sts_loss") == "cosent",
            "gradcache": settings.get("cached"),
            "matryoshka": settings.get("matryoshka"),
            "pcgrad": mixture.get("surgery") == "pcgrad",
            "boom": self.run is not None and self.run.is_bagged,
        }
        return [name for name, is_used in used.items() if is_used]

    @property
    def family(self) -> list[Parent]:
        """The base, if it is known, and the parents."""
        return [parent for parent in (self.base, *self.parents) if parent is not None]

    @property
    def local_parents(self) -> list[Parent]:
        """The base and the parents that are not on the Hub."""
        return [parent for parent in self.family if not parent.repo]

    @property
    def dataset_repos(self) -> list[str]:
        """Hub ids of the data sets it was trained or searched on, each once, in order."""
        names = [self.probe_set] if self.probe_set else []
        for entry in (*self.data, *self.probe):
            names += hub_datasets(entry.source or "")
        return list(dict.fromkeys(names))

    def linked(self, published: Mapping[str, HubModel], probe_set: str | None) -> Facts:
        """The facts with the repositories of parents and of the probe set that are (to be) published."""
        parents = []
        for parent in self.parents:
            hub = published.get(parent.name)
            parents.append(replace(parent, repo=hub.repo, revision=hub.revision) if hub else parent)
        return replace(self, parents=tuple(parents), probe_set=probe_set or self.probe_set)

    def public_record(self) -> dict[str, Any]:
        """The content of `selfpos.json` with parents on the Hub by repository and commit, and no folder."""
        public = copy.deepcopy(dict(self.record))
        base = public.get("base")
        entries = [base, *public.get("merge", {}).get("sources", ())]
        for entry, parent in zip(entries, (parse_parent(base), *self.parents), strict=True):
            if parent is None:
                continue
            entry.pop("path", None)
            entry["name"] = parent.name
            if parent.repo:
                entry["repo"] = parent.repo
            if parent.revision:
                entry["revision"] = parent.revision
        if self.probe_set is not None:
            public[PUBLISHED] = {"probe_set": self.probe_set}
        return public


def hub_datasets(source: str) -> list[str]:
    """Hub ids in a data source: `hub:NAME[:CONFIG][@REVISION]`, several of them separated by commas."""
    return re.findall(r"hub:([\w.-]+(?:/[\w.-]+)?)", source)


def read_facts(folder: Path, *, path: Path | None = None) -> Facts:
    """What the model folder, its `selfpos.json` and its run say; `path` is where the folder will be.

    Raises SelfposError where `folder` is no model, or one of its JSON files is damaged.
    """
    record = read_manifest(folder)
    run = run_of(path or folder)
    summary = read_summary(folder)
    sources = run.sources if run else {}
    finetuned = (record.get("finetune") or {}).get("source", {}).get("data")
    tasks = record.get("tasks") or {}
    base = record.get("base")
    if run is not None and base is not None:
        base = {**base, "name": run.recipe.base}
    elif base is None and summary.adapter:
        base = {"path": summary.adapter.get("base_model_name_or_path")}
    return Facts(
        name=str(record.get("name") or (path or folder).resolve().name),
        summary=summary,
        record=record,
        run=run,
        base=parse_parent(base),
        parents=_parents(record.get("merge") or {}, record.get("positioning") or {}),
        data=_data(tasks, dict.fromkeys(tasks, finetuned) if finetuned and len(tasks) == 1 else sources),
        probe=_data(record.get("positioning", {}).get("probe") or {}, sources),
        probe_set=record.get(PUBLISHED, {}).get("probe_set"),
        trajectory=_trajectory([folder / TRAJECTORY, *([run.trajectory] if run else [])]),
        recipe=_recipe([folder / "recipe.yaml", *([run.folder.recipe] if run else [])]),
        overlap=read_overlap([folder / OVERLAP, *([run.folder.overlap] if run else [])]),
    )


def parse_parent(entry: Mapping[str, Any] | None) -> Parent | None:
    """A parent from its record; a path of the Hub's cache says repository and commit."""
    source = (entry or {}).get("path") or (entry or {}).get("name")
    if not entry or not source:
        return None
    repo, revision = entry.get("repo"), entry.get("revision")
    if not repo and (snapshot := hub_snapshot(Path(source))):
        repo, revision = snapshot["repo"], snapshot["revision"]
    name = str(entry.get("name") or source)
    if Path(name).is_absolute():
        name = Path(name).name
    if not repo and name.removeprefix("sentence-transformers/") == DEFAULT_MODEL:
        repo = f"sentence-transformers/{DEFAULT_MODEL}"
    return Parent(name, source, repo, revision, entry.get("hash"))


def _parents(merge: Mapping[str, Any], search: Mapping[str, Any]) -> tuple[Parent, ...]:
    entries = merge.get("sources") or []
    coefficients = merge.get("coefficients") or search.get("coefficients")
    if not isinstance(coefficients, list):
        coefficients = []
    intervals = search.get("intervals") or []
    parents = []
    for index, entry in enumerate(entries):
        parent = parse_parent(entry)
        if parent is None:
            continue
        if len(coefficients) >= len(entries):
            parent = replace(parent, coefficient=coefficients[index - len(entries)])
        if len(intervals) == len(entries):
            parent = replace(parent, interval=intervals[index])
        parents.append(parent)
    return tuple(parents)


def _search_method(search: Mapping[str, Any]) -> str:
    preset = (search.get("settings") or {}).get("preset")
    return next((name for name, learned in LEARNED.items() if learned == preset), "self-positioning")


def _data(tasks: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Any]) -> tuple[DataSource, ...]:
    rows = []
    for name, entry in tasks.items():
        source = sources.get(name)
        text = ", ".join(source) if isinstance(source, list) else source
        rows.append(DataSource(name, entry.get("type"), text, entry.get("records"), entry.get("hash")))
    return tuple(rows)


def _first(files: Sequence[Path]) -> Path | None:
    """The first file that exists, and is no link out of its folder."""
    return next((file for file in files if file.is_file() and not leads_out(file.parent, file)), None)


def _recipe(files: Sequence[Path]) -> str | None:
    """The first recipe that exists, without the folders of paths."""
    file = _first(files)
    return recipe_for_others(file).strip() if file else None


def _trajectory(files: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """The rows of the first file that exists. Lines that are not as a search writes them, as the last of a
    stopped search, are left out.
    """
    from selfpos.storage.manifest_types import Step

    rows = []
    file = _first(files)
    for line in read_text(file).splitlines() if file else ():
        with suppress(ValueError):
            Step.model_validate(row := parse_json(line))
            rows.append({name: value for name, value in row.items() if value is not None})
    return tuple(rows)
