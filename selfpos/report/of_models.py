"""What is known of models outside a run, for a report: their scores, their records, their searches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from selfpos.comparison import Scored, find_models
from selfpos.comparison.sources import base_among
from selfpos.errors import SelfposError
from selfpos.report.results import Results, Search, scores_of, tasks_of
from selfpos.storage.manifest import read_manifest


def read_models(names: Sequence[str], scores: Path) -> Results:
    """The results of models, runs and folders of scores, found as by `selfpos compare`. A model without
    scores is shown by what made it.

    Raises SelfposError as `find_models` does, and where nothing is known of any, or a model has runs of
    several seeds.
    """
    models = find_models(names, scores, unscored=True)
    if seeds := [model.name for model in models if len(model.runs) > 1]:
        raise SelfposError(f"{seeds[0]} was run with several seeds; `selfpos compare` shows them together")
    runs = {model.name: next(iter(model.runs.values())) for model in models if model.runs}
    folders = {model.name: model.folder for model in models if model.folder is not None}
    base = base_among(models)
    unscored = [model.name for model in models if not model.runs]
    made = [name for name in unscored if read_manifest(folders[name])]
    if not runs and not made:
        raise SelfposError(
            f"{', '.join(unscored)}: nothing is known but the weights; score it first with `selfpos "
            f"eval-mteb {' '.join(names)} --out {scores}`, or name the folder of its scores with --scores"
        )
    tasks = tasks_of(runs.values())
    counted = f"{len(models)} model{'s' if len(models) > 1 else ''}"
    return Results(
        name=", ".join(Path(name).name for name in names) if len(names) < 4 else counted,
        lead=f"{counted}, scored on {len(tasks)} task{'s' if len(tasks) != 1 else ''}.",
        kinds={model.name: "base" if model.name == base else _kind(model) for model in models},
        folders=folders,
        scored=[model for model in models if model.runs],
        tasks=tasks,
        scores=scores_of(runs),
        searches={name: search for name, folder in folders.items() if (search := _search(folder))},
        missing=[f"scores of {', '.join(unscored)} (selfpos eval-mteb)"] if unscored else [],
    )


def _kind(model: Scored) -> str:
    """The role of a model in figures, by its record."""
    record = read_manifest(model.folder) if model.folder else {}
    if "positioning" in record:
        return "positioned"
    kind = record.get("kind")
    return kind if kind in ("specialist", "joint", "merge") else "model"


def _search(folder: Path) -> Search | None:
    """The search that found a model's coefficients; without its path, where that lies nowhere near."""
    position = read_manifest(folder).get("positioning")
    if position is None:
        return None
    path = folder.with_name(f"{folder.name}.trajectory.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return Search(position, [json.loads(line) for line in lines])
