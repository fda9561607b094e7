"""What a report shows, and the table of its scores; `of_run` and `of_models` read it from disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from selfpos.comparison import Comparison, Scored, compare
from selfpos.comparison.differences import Replicates, resample
from selfpos.comparison.tables import Grid, Line, percent
from selfpos.scores.files import TaskScore
from selfpos.storage.manifest import read_manifest


@dataclass(frozen=True)
class Search:
    """One search for coefficients: its result and its steps."""

    position: dict[str, Any]
    trajectory: list[dict[str, Any]]


@dataclass(frozen=True)
class Cost:
    """What one model cost; None where unknown.

    `seconds` are for making it, `total` with all that it was made from. `draws` are samples of training data
    or texts that a search embedded; `memory` is the peak in bytes.
    """

    model: str
    kind: str
    seconds: float | None
    total: float | None
    draws: str | None
    memory: float | None
    scoring: float | None


@dataclass(frozen=True, kw_only=True)
class Results:
    """Models and their scores; `missing` is what is not there yet.

    `kinds` maps model → its role in figures, where `positioned` is a merge whose coefficients were searched
    for; `folders` model → its folder, where that is known; `scores` model → task → main score in 0..1;
    `tasks` task → {"type", "metric"}; `pipelines` pipeline → what its trainings took, of which `equal` was
    held equal; `seconds` job → what it took. `recipe` and `sections` are texts of the page: YAML, and HTML
    of other rooms. `additions` is what other commands could add.
    """

    name: str
    lead: str
    kinds: Mapping[str, str]
    folders: Mapping[str, Path]
    scored: Sequence[Scored]
    tasks: Mapping[str, Mapping[str, str]]
    scores: Mapping[str, Mapping[str, float]]
    searches: Mapping[str, Search] = field(default_factory=dict)
    vectors: Sequence[str] = ()
    gram: Sequence[Sequence[float]] = ()
    missing: Sequence[str] = ()
    additions: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    costs: Sequence[Cost] = ()
    pipelines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    equal: str | None = None
    recipe: str = ""
    sections: Sequence[str] = ()

    @cached_property
    def comparison(self) -> Comparison | None:
        """The differences to the base with intervals; None for fewer than two models."""
        return self.compared_to(None) if len(self.scored) > 1 else None

    def compared_to(self, baseline: str | None) -> Comparison:
        """The differences to `baseline`, or to what `compare` takes for it; examples are resampled once."""
        return compare(self.scored, baseline=baseline, resampled=self._resampled)

    @cached_property
    def _resampled(self) -> dict[str, Replicates]:
        return resample(self.scored)

    @property
    def baseline(self) -> str:
        return self.comparison.baseline if self.comparison else "base"

    @property
    def optional(self) -> list[str]:
        """What other commands could add."""
        optional = list(self.additions)
        if len(self.scores) > 1 and (self.comparison is None or self.comparison.notes):
            optional.append(
                "intervals of all scores (score again, so that the examples behind them are kept)"
            )
        return optional

    @property
    def origins(self) -> list[tuple[str, str, str]]:
        """Model, how it was made, and the hashes of its inputs, of every model with a manifest."""
        origins = []
        for name, folder in self.folders.items():
            manifest = read_manifest(folder)
            if not manifest:
                continue
            merge = manifest.get("merge") or {}
            method = merge.get("method") or manifest.get("kind", "")
            if "positioning" in manifest:
                method = f"self-positioning, applied by {method}"
            inputs = [
                f"{task}: {entry['records']:,} records {entry['hash'][:12]}"
                for task, entry in (manifest.get("tasks") or {}).items()
            ]
            inputs += [f"{entry['name']} {entry['hash'][:12]}" for entry in merge.get("sources") or ()]
            seed = manifest.get("seed", merge.get("seed"))
            origins.append((name, f"{method}, seed {seed}", ", ".join(inputs)))
        return origins

    def mean(self, model: str) -> float | None:
        """Mean over all tasks; None while one is missing."""
        scores = self.scores.get(model, {})
        return sum(scores.values()) / len(scores) if len(scores) == len(self.tasks) and scores else None


def make_table(results: Results) -> Grid:
    """Models as rows; the tasks, noted with their metrics, and their mean as columns."""
    tasks = list(results.tasks)
    values = {
        model: [*(scores.get(task) for task in tasks), results.mean(model)]
        for model, scores in results.scores.items()
    }
    rows = [Line(model, results.kinds[model], cells) for model, cells in percent(values).items()]
    title = f"{results.name}: scores in percent, * best of its column"
    return Grid(title, [*tasks, "mean"], [*(results.tasks[task]["metric"] for task in tasks), ""], rows)


def tasks_of(runs: Iterable[Mapping[str, TaskScore]]) -> dict[str, dict[str, str]]:
    """Task → its type and metric, of all tasks in the scores of models."""
    return {task: {"type": score.type, "metric": score.metric} for run in runs for task, score in run.items()}


def scores_of(runs: Mapping[str, Mapping[str, TaskScore]]) -> dict[str, dict[str, float]]:
    """Model → task → main score."""
    return {model: {task: score.main_score for task, score in run.items()} for model, run in runs.items()}
