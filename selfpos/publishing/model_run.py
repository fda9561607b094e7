"""The run that a model is part of: its recipe, data, search and training times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.storage.manifest import read_json
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from selfpos.recipe import Recipe


@dataclass(frozen=True)
class ModelRun:
    """A run and one of its models."""

    folder: RunFolder
    recipe: Recipe
    model: Path

    @property
    def sources(self) -> Mapping[str, str | list[str]]:
        """Task → the source of its data."""
        return {name: task.data for name, task in self.recipe.tasks.items()}

    @property
    def trajectory(self) -> Path:
        """The steps of the search behind the model."""
        return self.folder.trajectory(self.model.name)

    @property
    def is_bagged(self) -> bool:
        """Whether the model, or what it was merged from, is of the bagging pipeline."""
        merge = self.recipe.merges.get(self.model.name)
        return self.model.name in self.recipe.bags or (merge is not None and merge.vectors == "bagging")

    @property
    def seconds(self) -> float | None:
        """Seconds of the job that made the model."""
        return self._seconds(self.folder.places(self.model.name)[self.model])

    def trained(self, name: str) -> Path | None:
        """The folder of the model `name` if the run trained, rather than merged, it."""
        places = [path for path in self.folder.places(name) if path != self.folder.merged(name)]
        return next((path for path in places if path.is_dir()), None)

    def training_seconds(self, names: Sequence[str]) -> float | None:
        """Seconds of training all models `names`; None where that of one is unknown."""
        paths = {name: self.trained(name) for name in names}
        seconds = [
            self._seconds(self.folder.places(name)[path]) if path else None for name, path in paths.items()
        ]
        known = [value for value in seconds if value is not None]
        return sum(known) if known and len(known) == len(seconds) else None

    def _seconds(self, job: str) -> float | None:
        mark = self.folder.mark(job)
        return read_json(mark).get("seconds") if mark.is_file() else None


def run_of(model: Path) -> ModelRun | None:
    """The run whose folder holds `model`; None for a model outside a run."""
    from selfpos.recipe import load_recipe

    path = model.resolve()
    for parent in path.parents[:2]:
        folder = RunFolder(parent)
        if folder.recipe.is_file() and path in folder.places(path.name):
            return ModelRun(folder, load_recipe(folder.recipe), path)
    return None
