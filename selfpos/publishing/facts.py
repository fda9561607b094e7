"""What is known of how a model was made: read once from the folder, its `selfpos.json` and its run, and
handed on.

Every field is optional. What is unknown is None or empty, and is left out of the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from selfpos.positioning.methods import METHODS
from selfpos.publishing import overlap
from selfpos.publishing.model_run import ModelRun, run_of
from selfpos.publishing.model_summary import ModelSummary, read_summary
from selfpos.recipe import LEARNED
from selfpos.storage.locate import DEFAULT_MODEL
from selfpos.storage.manifest import read_manifest

TRAJECTORY = "trajectory.jsonl"  # of the search, in a published model
PUBLISHED = "published"  # the part of selfpos.json that publishing adds; the weight files do not hold it

Kind = Literal["merged", "specialist", "joint", "model"]


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub: repository and commit, which is None while it is still to be made."""

    repo: str
    revision: str | None


@dataclass(frozen=True)
class Parent:
    """A model that another was made from: the base, or one of the merged models.

    `interval` is the 90 % interval of a coefficient that was searched for.
    """

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
    """Training or probe data of a task: type, source, number of records and their hash."""

    task: str
    type: str | None = None
    source: str | None = None
    records: int | None = None
    hash: str | None = None


@dataclass(frozen=True)
class Search:
    """How coefficients were searched for on a probe set: `record` is the manifest's.

    `probe_set` is its Hub id if published. `losses` maps tasks to the mean loss at the start and at the kept
    position.
    """

    record: Mapping[str, Any]
    probe: tuple[DataSource, ...] = ()
    probe_set: str | None = None
    losses: Mapping[str, tuple[float | None, float]] = field(default_factory=dict)
    trajectory: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that the card, its metadata and the licence are made from.

    `base_coefficient` is set for methods that give the base a coefficient. `groups` holds coefficients by
    tensor or layer where they differ, the base's first if it has one. `joints` are the run's joint models,
    `techniques` what training used that is to be cited, `overlap` the report on test items in training data.
    `record` is the content of `selfpos.json`, `merge` and `training` are its parts.
    """

    name: str
    kind: Kind
    summary: ModelSummary
    base: Parent | None = None
    base_coefficient: float | None = None
    parents: tuple[Parent, ...] = ()
    groups: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    method: str | None = None
    reference: str | None = None
    search: Search | None = None
    data: tuple[DataSource, ...] = ()
    seconds: float | None = None
    seed: int | None = None
    device: str | None = None
    parents_seconds: float | None = None
    recipe: str | None = None
    joints: tuple[str, ...] = ()
    techniques: tuple[str, ...] = ()
    overlap: Mapping[str, Any] | None = None
    licence: str | None = None
    run: ModelRun | None = None
    record: Mapping[str, Any] | None = None
    merge: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def adapter(self) -> bool:
        """Whether the folder holds a PEFT adapter rather than a whole model."""
        return self.summary.adapter is not None

    @property
    def family(self) -> list[Parent]:
        """The base and the parents."""
        return [parent for parent in (self.base, *self.parents) if parent is not None]

    @property
    def local_parents(self) -> list[Parent]:
        """The base and the parents that are not on the Hub."""
        return [parent for parent in self.family if not parent.repo]

    @property
    def dataset_repos(self) -> list[str]:
        """Hub ids of the data sets it was trained or searched on, each once, in order."""
        names = [self.search.probe_set] if self.search and self.search.probe_set else []
        for entry in (*self.data, *(self.search.probe if self.search else ())):
            names += hub_datasets(entry.source or "")
        return list(dict.fromkeys(names))

    def linked(self, published: Mapping[str, HubModel], probe_set: str | None) -> Facts:
        """The facts with the repositories of parents and of the probe set that are (to be) published."""

        def link(parent: Parent | None) -> Parent | None:
            hub = published.get(parent.name) if parent else None
            return replace(parent, repo=hub.repo, revision=hub.revision) if parent and hub else parent

        search = replace(self.search, probe_set=probe_set) if self.search and probe_set else self.search
        parents = tuple(parent for entry in self.parents if (parent := link(entry)))
        return replace(self, base=link(self.base), parents=parents, search=search)


def hub_datasets(source: str) -> list[str]:
    """Hub ids in a data source: `hub:NAME[:CONFIG][@REVISION]`, several of them separated by commas."""
    return re.findall(r"hub:([\w.-]+(?:/[\w.-]+)?)", source)


def read_facts(folder: Path, *, path: Path | None = None) -> Facts:
    """Gather what the model folder, its `selfpos.json` and its run say; `path` is where the folder is going
    to be.

    Raises SelfposError where `folder` is no model, or one of its JSON files is damaged.
    """
    record = read_manifest(folder)
    manifest = record or {}
    run = run_of(path or folder)
    merge, search = _mapping(manifest, "merge"), _mapping(manifest, "positioning")
    training = _mapping(manifest, "training") or (manifest if "tasks" in manifest and not merge else {})
    summary = read_summary(folder)
    parents = _parents(merge, search)
    given = merge.get("coefficients") or search.get("tensors")
    groups = {str(name): tuple(row) for name, row in given.items()} if isinstance(given, Mapping) else {}
    reference = merge.get("reference")
    if search:
        reference = METHODS[_search_method(search)].reference
    elif not re.fullmatch(r"https?://[^\s()<>]+", str(reference)):
        reference = None
    overlap_files = [folder / overlap.FILE, *([run.folder.overlap] if run else [])]
    return Facts(
        name=str(manifest.get("name") or (path or folder).resolve().name),
        kind=_kind(manifest, merge, training),
        summary=summary,
        base=_base(manifest, summary, run),
        base_coefficient=_base_coefficient(merge),
        parents=parents,
        groups=groups,
        method=_method(manifest, merge, search),
        reference=reference,
        search=_search(folder, manifest, run) if search else None,
        data=_data(_with_sources(_mapping(training, "tasks"), manifest, run)),
        seconds=_first(
            *(source.get("seconds") for source in (training, merge, manifest)), run.seconds if run else None
        ),
        seed=_first(*(source.get("seed") for source in (manifest, search, training, merge))),
        device=_first(manifest.get("device"), training.get("device")),
        parents_seconds=run.training_seconds([parent.name for parent in parents]) if run else None,
        recipe=_recipe(folder, manifest, run),
        joints=tuple(run.recipe.joints) if run else (),
        techniques=_techniques(training, run),
        overlap=overlap.read_overlap(overlap_files),
        licence=manifest.get("licence") or manifest.get("license"),
        run=run,
        record=record,
        merge=merge,
        training=training,
    )


def parse_parent(entry: Any, coefficient: float | None = None) -> Parent | None:
    """A parent from its record or its name. A path of the Hub's cache says repository and commit."""
    if not entry:
        return None
    record: Mapping[str, Any] = (
        entry if isinstance(entry, Mapping) else {"name": str(entry), "source": str(entry)}
    )
    source = record.get("path") or record.get("source") or record.get("name")
    repo, revision = record.get("repo"), record.get("revision")
    if snapshot := re.search(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})", str(source)):
        repo, revision = repo or f"{snapshot[1]}/{snapshot[2]}", revision or snapshot[3]
    name = str(record.get("name") or source)
    if Path(name).is_absolute():
        name = Path(name).name
    if not repo and name.removeprefix("sentence-transformers/") == DEFAULT_MODEL:
        repo = f"sentence-transformers/{DEFAULT_MODEL}"
    return Parent(
        name=name,
        source=source,
        repo=repo,
        revision=revision,
        hash=record.get("hash"),
        licence=record.get("licence") or record.get("license"),
        coefficient=record.get("coefficient", coefficient),
        norm=record.get("norm"),
    )


def _kind(manifest: Mapping[str, Any], merge: Mapping[str, Any], training: Mapping[str, Any]) -> Kind:
    if merge or manifest.get("kind") in ("merge", "merged"):
        return "merged"
    if manifest.get("kind") in ("specialist", "joint"):
        return manifest["kind"]
    if len(_mapping(training, "tasks")) > 1:
        return "joint"
    return "specialist" if training else "model"


def _base(manifest: Mapping[str, Any], summary: ModelSummary, run: ModelRun | None) -> Parent | None:
    """The base as the manifest names it; inside a run by the name in the recipe."""
    record = manifest.get("base") or (summary.adapter or {}).get("base_model_name_or_path")
    if run is not None and isinstance(record, Mapping):
        record = {**record, "name": run.recipe.base}
    return parse_parent(record)


def _base_coefficient(merge: Mapping[str, Any]) -> float | None:
    """The base's coefficient, of a method that gives it one: it comes before the parents'."""
    given = merge.get("coefficients")
    has_base = isinstance(given, list) and len(given) == len(merge.get("sources") or ()) + 1
    return given[0] if isinstance(given, list) and has_base else None


def _parents(merge: Mapping[str, Any], search: Mapping[str, Any]) -> tuple[Parent, ...]:
    entries: Sequence[Any] = merge.get("sources") or ()
    given = merge.get("coefficients") or search.get("coefficients")
    coefficients: Sequence[Any] = [None] * len(entries)
    if isinstance(given, list) and len(given) >= len(entries):
        coefficients = given[-len(entries) :]
    intervals = search.get("intervals")
    parents = []
    for index, (entry, coefficient) in enumerate(zip(entries, coefficients, strict=True)):
        parent = parse_parent(entry, coefficient)
        if parent and isinstance(intervals, list) and len(intervals) == len(entries):
            low, high = intervals[index]
            parent = replace(parent, interval=(low, high))
        if parent:
            parents.append(parent)
    return tuple(parents)


def _method(manifest: Mapping[str, Any], merge: Mapping[str, Any], search: Mapping[str, Any]) -> str | None:
    """The merge method; for a linear merge with searched coefficients the search."""
    given = manifest.get("method") or merge.get("method")
    return _search_method(search) if search and given in (None, "linear") else given


def _search_method(search: Mapping[str, Any]) -> str:
    preset = _mapping(search, "settings").get("preset")
    return next((name for name, own in LEARNED.items() if own == preset), "self-positioning")


def _techniques(training: Mapping[str, Any], run: ModelRun | None) -> tuple[str, ...]:
    """What the training (of a merge, that of its parents) used, by the names in `citations.bib`."""
    settings, mixture = _mapping(training, "settings"), _mapping(training, "mixture_settings")
    types = {task.get("type") for task in _mapping(training, "tasks").values() if isinstance(task, Mapping)}
    bagged = False
    if run is not None:
        merge = run.recipe.merges.get(run.model.name)
        bagged = run.model.name in run.recipe.bags or (merge is not None and merge.vectors == "bagging")
    used = {
        "cosent": "sts" in types and settings.get("sts_loss") == "cosent",
        "gradcache": settings.get("cached"),
        "matryoshka": settings.get("matryoshka"),
        "pcgrad": mixture.get("surgery") == "pcgrad",
        "boom": bagged,
    }
    return tuple(name for name, is_used in used.items() if is_used)


def _with_sources(
    tasks: Mapping[str, Any], manifest: Mapping[str, Any], run: ModelRun | None
) -> dict[str, dict[str, Any]]:
    """`tasks` with the source of each task's data, as `finetune` or the run's recipe named it."""
    sources = {task: entry["source"] for task, entry in (run.tasks.items() if run else ())}
    finetuned = _mapping(_mapping(manifest, "finetune"), "source").get("data")
    if len(tasks) == 1 and finetuned:
        sources = dict.fromkeys(tasks, finetuned)
    known = {}
    for task, entry in tasks.items():
        known[task] = {"source": sources[task]} if task in sources else {}
        known[task] |= entry if isinstance(entry, Mapping) else {}
    return known


def _data(tasks: Mapping[str, Mapping[str, Any]]) -> tuple[DataSource, ...]:
    rows = []
    for name, entry in tasks.items():
        source = entry.get("source") or entry.get("data") or entry.get("description")
        text = ", ".join(source) if isinstance(source, list) else source
        rows.append(DataSource(name, entry.get("type"), text, entry.get("records"), entry.get("hash")))
    return tuple(rows)


def _search(folder: Path, manifest: Mapping[str, Any], run: ModelRun | None) -> Search:
    search = _mapping(manifest, "positioning")
    rows = _trajectory([folder / TRAJECTORY, *([run.folder.trajectory(run.model.name)] if run else [])])
    validated = [row["validation"] for row in rows if isinstance(row.get("validation"), Mapping)]
    start = validated[0] if validated else {}
    losses = {
        task: (start.get(task), value)
        for task, value in _mapping(search, "losses").items()
        if isinstance(value, int | float)
    }
    sources: Mapping[str, Any] = run.probe if run else {}
    probe = {
        task: {**sources.get(task, {}), **entry}
        for task, entry in (_mapping(search, "probe") or sources).items()
    }
    probe_set = _mapping(manifest, PUBLISHED).get("probe_set")
    return Search(search, _data(probe), probe_set, losses, rows)


def _trajectory(files: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """The rows of the first file that exists. An incomplete line of a stopped search is skipped."""
    file = next((file for file in files if file.is_file()), None)
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, Mapping):
            rows.append(row)
    return tuple(rows)


def _recipe(folder: Path, manifest: Mapping[str, Any], run: ModelRun | None) -> str | None:
    """The recipe as YAML text: the file beside the weights, the manifest's, or that of the run."""
    import yaml

    file, recipe = folder / "recipe.yaml", manifest.get("recipe")
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    if isinstance(recipe, Mapping):
        return str(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)).strip()
    return run.folder.recipe.read_text(encoding="utf-8").strip() if run else None


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
