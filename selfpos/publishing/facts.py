"""What is known of how a model came to be: the one place that reads the provenance file `selfpos.json`.

Every field is optional. What the file does not say is None or empty here, and is left out of the card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfpos.positioning.methods import METHODS
from selfpos.publishing import overlap
from selfpos.publishing.shape import Shape, read_shape
from selfpos.publishing.story import DataSource, Facts, Kind, Parent, Search
from selfpos.publishing.surroundings import Surroundings, surroundings_of
from selfpos.recipe import LEARNED
from selfpos.storage.locate import DEFAULT_MODEL
from selfpos.storage.manifest import read_manifest

TRAJECTORY = "trajectory.jsonl"  # of the search, in a published model


def read_facts(folder: Path, told: Mapping[str, Any] | None = None, *, place: Path | None = None) -> Facts:
    """Gather what the model folder, its `selfpos.json` and the run it is part of say. A lone folder without that file yields its shape only.

    `told` takes the place of what `selfpos.json` holds; `place` is where the folder will be, if not there yet. Raises SelfposError where `folder` is no model, or one of its JSON files is damaged.
    """
    shape = read_shape(folder)
    told = (read_manifest(folder) or {}) if told is None else told
    around = surroundings_of(place or folder)
    merge = _mapping(told, "merge")
    training = _mapping(told, "training") or (told if "tasks" in told and not merge else {})
    return Facts(
        name=str(told.get("name") or (place or folder).resolve().name),
        kind=_kind(told, merge, training),
        shape=shape,
        base=_base(told, shape, around),
        base_coefficient=_base_coefficient(merge),
        parents=_parents(merge, told),
        groups=_groups(merge, _mapping(told, "positioning")),
        method=_method(told, merge),
        reference=_search_reference(told) if told.get("positioning") else _address(merge.get("reference")),
        params=_mapping(merge, "params"),
        dtype=merge.get("dtype"),
        search=_search(folder, told, around) if told.get("positioning") else None,
        data=_data(_with_sources(_mapping(training, "tasks"), told, around)),
        mixture=training.get("mixture"),
        training=_mapping(training, "settings"),
        steps=training.get("steps"),
        seconds=_first(
            training.get("seconds"),
            merge.get("seconds"),
            told.get("seconds"),
            around.seconds if around else None,
        ),
        seed=_first(
            told.get("seed"),
            _mapping(told, "positioning").get("seed"),
            training.get("seed"),
            merge.get("seed"),
        ),
        device=_first(told.get("device"), training.get("device")),
        peak_memory=training.get("peak_memory_bytes"),
        parents_seconds=around.training_seconds([parent.name for parent in _parents(merge, told)])
        if around
        else None,
        created=told.get("created"),
        versions=_mapping(told, "versions"),
        recipe=_recipe(folder, told, around),
        limitations=tuple(told.get("limitations") or ()),
        joints=tuple(around.recipe.joints) if around else (),
        techniques=_techniques(told, training, around),
        overlap=overlap.read_overlap([folder / overlap.FILE, *([around.run.overlap] if around else [])]),
        licence=told.get("licence") or told.get("license"),
    )


def _kind(told: Mapping[str, Any], merge: Mapping[str, Any], training: Mapping[str, Any]) -> Kind:
    if merge or told.get("kind") in ("merge", "merged"):
        return "merged"
    if told.get("kind") in ("specialist", "joint"):
        return told["kind"]
    return "joint" if len(_mapping(training, "tasks")) > 1 else "specialist" if training else "model"


def _techniques(
    told: Mapping[str, Any], training: Mapping[str, Any], around: Surroundings | None
) -> tuple[str, ...]:
    """What the training of the model used, and for a merge the pipeline that its vectors come from, by the names of publishing.citations."""
    settings, mixture = _mapping(training, "settings"), _mapping(training, "mixture_settings")
    types = {
        entry.get("type") for entry in _mapping(training, "tasks").values() if isinstance(entry, Mapping)
    }
    name = around.model.name if around else None
    bagged = around is not None and (
        name in around.recipe.bags
        or (name in around.recipe.merges and around.recipe.merges[name].vectors == "bagging")
    )
    used = {
        "cosent": "sts" in types and settings.get("sts_loss") == "cosent", "gradcache": settings.get("cached"),
        "matryoshka": settings.get("matryoshka"), "pcgrad": mixture.get("surgery") == "pcgrad", "boom": bagged,
    }  # fmt: skip
    return tuple(name for name, found in used.items() if found)


def _with_sources(
    tasks: Mapping[str, Any], told: Mapping[str, Any], around: Surroundings | None
) -> dict[str, Any]:
    """`tasks` with the source of each task's data, as `finetune` or the run's recipe named it."""
    finetune = _mapping(_mapping(told, "finetune"), "source")
    known = {task: {"source": finetune["data"]} for task in tasks if len(tasks) == 1 and finetune.get("data")}
    known = known or {
        task: {"source": entry["source"]} for task, entry in (around.tasks.items() if around else ())
    }
    return {
        task: {**known.get(task, {}), **(entry if isinstance(entry, Mapping) else {})}
        for task, entry in tasks.items()
    }


def _base(told: Mapping[str, Any], shape: Shape, around: Surroundings | None) -> Parent | None:
    """The base as the manifest names it; inside a run under the name that the recipe gives it."""
    record = told.get("base") or (shape.adapter or {}).get("base_model_name_or_path")
    if around is not None and isinstance(record, Mapping):
        record = {**record, "name": around.recipe.base}
    return parse_parent(record)


def _base_coefficient(merge: Mapping[str, Any]) -> float | None:
    """The base's own coefficient, of a method that gives it one: it comes before the parents'."""
    given = merge.get("coefficients")
    return given[0] if isinstance(given, list) and len(given) == len(merge.get("sources") or ()) + 1 else None


def _parents(merge: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[Parent, ...]:
    entries: Sequence[Any] = merge.get("sources") or ()
    given = merge.get("coefficients") or _mapping(told, "positioning").get("coefficients")
    coefficients = (
        given[-len(entries) :]
        if isinstance(given, list) and len(given) >= len(entries)
        else [None] * len(entries)
    )
    found = [
        parse_parent(entry, coefficient) for entry, coefficient in zip(entries, coefficients, strict=True)
    ]
    intervals = _mapping(told, "positioning").get("intervals")
    if isinstance(intervals, list) and len(intervals) == len(found):
        found = [
            replace(parent, interval=(low, high)) if parent else None
            for parent, (low, high) in zip(found, intervals, strict=True)
        ]
    return tuple(parent for parent in found if parent is not None)


def _method(told: Mapping[str, Any], merge: Mapping[str, Any]) -> str | None:
    """The merge method; self-positioning, or the search that its preset stands for, where the coefficients of a linear merge were searched for."""
    given = told.get("method") or merge.get("method")
    return _search_method(told) if told.get("positioning") and given in (None, "linear") else given


def _search_method(told: Mapping[str, Any]) -> str:
    preset = _mapping(_mapping(told, "positioning"), "settings").get("preset")
    return next((name for name, own in LEARNED.items() if own == preset), "self-positioning")


def _search_reference(told: Mapping[str, Any]) -> str:
    return METHODS[_search_method(told)].reference


def _groups(merge: Mapping[str, Any], search: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    given = _first(merge.get("coefficients"), search.get("tensors"))
    return {str(name): tuple(values) for name, values in given.items()} if isinstance(given, Mapping) else {}


def parse_parent(entry: Any, coefficient: float | None = None) -> Parent | None:
    """A parent from its record, or from its bare name. Where a Hub snapshot's path is recorded, the path tells repository and commit."""
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
    coefficient = record.get("coefficient", coefficient)
    return Parent(
        name,
        source,
        repo,
        revision,
        record.get("hash"),
        record.get("licence") or record.get("license"),
        coefficient,
        record.get("norm"),
    )


def _data(tasks: Mapping[str, Any]) -> tuple[DataSource, ...]:
    found = []
    for name, entry in tasks.items():
        record = entry if isinstance(entry, Mapping) else {}
        source = record.get("source") or record.get("data") or record.get("description")
        text = ", ".join(source) if isinstance(source, list) else source
        found.append(DataSource(name, record.get("type"), text, record.get("records"), record.get("hash")))
    return tuple(found)


def _search(folder: Path, told: Mapping[str, Any], around: Surroundings | None) -> Search:
    search = _mapping(told, "positioning")
    rows = _trajectory([folder / TRAJECTORY, *([around.trajectory] if around else [])])
    judged = [row["validation"] for row in rows if isinstance(row.get("validation"), Mapping)]
    before, after = judged[0] if judged else {}, _mapping(search, "losses")
    sources: Mapping[str, Any] = around.probe if around else {}
    probe = {
        task: {**sources.get(task, {}), **entry}
        for task, entry in (_mapping(search, "probe") or sources).items()
    }
    return Search(
        settings=_mapping(search, "settings"),
        parameters=_mapping(search, "parameters"),
        probe=_data(probe),
        probe_set=_mapping(told, "published").get("probe_set"),
        losses={
            task: (before.get(task), value) for task, value in after.items() if isinstance(value, int | float)
        },
        steps=search.get("steps"),
        best_step=search.get("step"),
        seconds=search.get("seconds"),
        verdict=search.get("verdict"),
        picked=_mapping(search, "picked"),
        tried=len(search.get("tried") or ()),
        trajectory=rows,
    )


def _trajectory(files: Sequence[Path]) -> tuple[Mapping[str, Any], ...]:
    """The rows of the first of `files` that is there: one JSON object a line. A line that a stopped search left unfinished is passed over."""
    file = next((file for file in files if file.is_file()), None)
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return tuple(row for row in rows if isinstance(row, Mapping))


def _recipe(folder: Path, told: Mapping[str, Any], around: Surroundings | None) -> str | None:
    """The recipe as YAML text: the file beside the weights, what the manifest holds, or that of the run."""
    import yaml

    file, recipe = folder / "recipe.yaml", told.get("recipe")
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    if isinstance(recipe, Mapping):
        return str(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)).strip()
    return around.recipe_text if around else None


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _address(value: Any) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"https?://[^\s()<>]+", value) else None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
