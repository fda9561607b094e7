"""What each model of a run cost, and what it was made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.storage.manifest import read_manifest
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from selfpos.recipe import Recipe
    from selfpos.report.results import RunResults


@dataclass(frozen=True)
class Cost:
    """One model: seconds to make it (for a merge, beyond what it merges), in `total` with all that it was made from, and to score it; samples drawn
    from training data or texts that a search embedded, and the most memory in bytes. None where it is not known."""

    model: str
    kind: str
    seconds: float | None
    total: float | None
    draws: str | None
    memory: float | None
    scoring: float | None


def costs_of(results: RunResults, folder: RunFolder) -> list[Cost]:
    """The costs of all models, from the marks of jobs, the manifests and the searches."""
    recipe = results.recipe
    names = ["base", *recipe.trained, *recipe.merges]
    found = []
    for name in names:
        kind = results.kind(name)
        job = "joint" if name == "joint" else f"{kind if name in recipe.trained else 'merge'}.{name}"
        manifest = _manifest(folder, kind, name)
        draws = None
        if manifest.get("samples") is not None:
            draws = f"{manifest['samples']:,} samples"
        elif name in results.searches and results.searches[name].position.get("texts") is not None:
            draws = f"{results.searches[name].position['texts']:,} texts"
        seconds, scoring = results.seconds.get(job), results.seconds.get(f"scores.{name}")
        found.append(Cost(name, kind, seconds, seconds, draws, manifest.get("peak_memory_bytes"), scoring))
    alone = {cost.model: cost.seconds for cost in found}
    return [
        replace(
            cost, total=_together([alone.get(name) for name in [*_parts(recipe, cost.model), cost.model]])
        )
        for cost in found
    ]


def _parts(recipe: Recipe, name: str) -> list[str]:
    """What the model `name` was made from: for a merge the models of its pipeline, for a stage of the iterative one those before it."""
    if name in recipe.merges:
        pipelines: dict[str, list[str]] = {
            "separate": list(recipe.tasks),
            "iterative": list(recipe.stages),
            "bagging": list(recipe.bags),
        }
        return [part for part in pipelines[recipe.merges[name].vectors] if part in recipe.trained]
    stages = list(recipe.stages)
    return (
        [stage for stage in stages[: stages.index(name)] if stage in recipe.trained] if name in stages else []
    )


def _together(seconds: list[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return sum(known) if len(known) == len(seconds) else None


def origins_of(results: RunResults, folder: RunFolder) -> list[tuple[str, str, str]]:
    """Model, what made it, and the hash of what went into it, of every model that has a manifest."""
    found = []
    for name in [*results.recipe.trained, *results.recipe.merges]:
        manifest = _manifest(folder, results.kind(name), name)
        if not manifest:
            continue
        seed = manifest.get("seed", (manifest.get("merge") or {}).get("seed"))
        data = ", ".join(
            f"{task}: {told['records']:,} records {told['hash'][:12]}"
            for task, told in (manifest.get("tasks") or {}).items()
        )
        merged = manifest.get("merge") or {}
        sources = ", ".join(
            f"{source['name']} {source['hash'][:12]}" for source in merged.get("sources") or ()
        )
        made = merged.get("method") or manifest.get("kind", "")
        if "positioning" in manifest:
            made = f"self-positioning, applied by {made}"
        found.append((name, f"{made}, seed {seed}", data or sources))
    return found


def _manifest(folder: RunFolder, kind: str, name: str) -> dict[str, Any]:
    places: dict[str, Path] = {
        "specialist": folder.specialist(name), "joint": folder.rival(name), "iterative": folder.stage(name), "bagging": folder.bag(name),
    }  # fmt: skip
    place = places.get(kind, folder.merged(name))
    return (read_manifest(place) or {}) if place.is_dir() and kind != "base" else {}
