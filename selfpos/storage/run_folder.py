"""Where everything of a run lies on disk: one folder under `checkpoints/`, laid out here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Models are named as in its tables: `base`, `joint`, the tasks of the specialists, the names of the merges."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe that the run was started with."""
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    @property
    def probe(self) -> Path:
        return self.path / "probe"

    @property
    def joint(self) -> Path:
        return self.path / "joint"

    def rival(self, name: str) -> Path:
        """The joint rival `name`, of which there may be several."""
        return self.joint if name == "joint" else self.path / "joints" / name

    def stage(self, name: str) -> Path:
        """A checkpoint of the iterative pipeline."""
        return self.path / "iterative" / name

    def bag(self, name: str) -> Path:
        """A model of the bagging pipeline."""
        return self.path / "bagging" / name

    @property
    def pipelines(self) -> Path:
        """What each pipeline took: draws, steps, tokens, seconds, peak memory; as JSON."""
        return self.path / "pipelines.json"

    @property
    def overlap(self) -> Path:
        """What training records share with test data, as JSON, when the recipe asks for it."""
        return self.path / "overlap.json"

    @property
    def geometry(self) -> Path:
        """Gram matrix of the task vectors, as JSON."""
        return self.path / "vectors.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def table(self) -> Path:
        """Scores of all models on all tasks, as JSON."""
        return self.path / "table.json"

    @property
    def analysis(self) -> Path:
        """What an analysis of the run found, as JSON."""
        return self.path / "analysis" / "analysis.json"

    @property
    def overlap_section(self) -> Path:
        """What the overlap guard found, as a section of the report."""
        return self.path / "overlap" / "section.html"

    @property
    def sections(self) -> list[Path]:
        """HTML that other rooms left for the report, one file each: `<folder>/section.html`."""
        return sorted(self.path.glob("*/section.html"))

    def mark(self, job: str) -> Path:
        """The file that says that `job` is finished, and from what."""
        return self.path / "jobs" / f"{job.replace('/', '.')}.json"

    def specialist(self, task: str) -> Path:
        return self.path / "specialists" / task

    def merged(self, name: str) -> Path:
        return self.path / "merged" / name

    def position(self, name: str) -> Path:
        """The coefficients that Self Positioning found for the merge `name`, as JSON."""
        return self.path / "positions" / f"{name}.json"

    def trajectory(self, name: str) -> Path:
        """One line of JSON per step of the search behind the merge `name`."""
        return self.path / "positions" / f"{name}.trajectory.jsonl"

    def coefficients(self, name: str) -> Path:
        """What `selfpos merge --coefficients` applies again to the same vectors, for the merge `name`."""
        return self.path / "positions" / f"{name}.coefficients.json"

    def scores(self, model: str) -> Path:
        """MTEB result files of `model`, in MTEB's own layout."""
        return self.path / "scores" / model

    @property
    def cache(self) -> Path:
        """Embeddings and tokens kept while models are scored; nothing of the run is lost with it."""
        return self.path / "cache"
