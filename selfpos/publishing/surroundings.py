"""What the run that a model is part of knows of it: recipe, data, trajectory of the search, seconds. Absent for a model that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.publishing.shape import read_json
from selfpos.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from selfpos.recipe import Recipe


@dataclass(frozen=True)
class Surroundings:
    """The run around one of its models."""

    run: RunFolder
    recipe: Recipe
    model: Path

    @property
    def recipe_text(self) -> str:
        return self.run.recipe.read_text(encoding="utf-8").strip()

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """Task → its type and where its data came from."""
        return {name: {"type": task.type, "source": task.data} for name, task in self.recipe.tasks.items()}

    @property
    def probe(self) -> Mapping[str, Mapping[str, Any]]:
        """Task → type, source and number of its probe records."""
        return {name: {**task, "records": self.recipe.probe.per_task} for name, task in self.tasks.items()}

    @property
    def trajectory(self) -> Path:
        """The trajectory of the search behind the model, whether or not there is one."""
        return self.run.trajectory(self.model.name)

    @property
    def seconds(self) -> float | None:
        """Seconds that the job which made the model took."""
        return self._seconds(_places(self.run, self.model.name)[self.model])

    def trained(self, name: str) -> Path | None:
        """The folder of the model `name` that the run trained: a specialist, a joint rival, a stage or a bag; None where there is none."""
        return next(
            (place for place in _places(self.run, name) if place.is_dir() and place != self.run.merged(name)),
            None,
        )

    def training_seconds(self, names: Sequence[str]) -> float | None:
        """Seconds that training the models `names` took, all together; None where that is not known of each."""
        found = [
            self._seconds(_places(self.run, name)[place]) if (place := self.trained(name)) else None
            for name in names
        ]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if known and len(known) == len(found) else None

    def _seconds(self, job: str) -> float | None:
        seconds = read_json(self.run.mark(job)).get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None


def surroundings_of(model: Path) -> Surroundings | None:
    """The run whose folder holds `model` as a merge or as one that it trained; None where there is none.

    Raises SelfposError where the run's recipe is not valid.
    """
    from selfpos.recipe import load_recipe

    place = model.resolve()
    for parent in place.parents[:2]:
        run = RunFolder(parent)
        if run.recipe.is_file() and place in _places(run, place.name):
            return Surroundings(run, load_recipe(run.recipe), place)
    return None


def _places(run: RunFolder, name: str) -> dict[Path, str]:
    """Where a model called `name` may lie in `run`, and the job that makes it there."""
    return {
        run.merged(name): f"merge/{name}", run.specialist(name): f"specialist/{name}",
        run.rival(name): "joint" if name == "joint" else f"joint/{name}", run.stage(name): f"iterative/{name}", run.bag(name): f"bagging/{name}",
    }  # fmt: skip
