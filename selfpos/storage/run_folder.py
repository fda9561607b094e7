"""Where everything of a run lies on disk: one folder under `checkpoints/`, laid out here and nowhere else."""

from __future__ import annotations

from pathlib import Path


class RunFolder:
    """The folder of one run. Models have their names in its tables: `base`, `joint`, tasks, merges."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"  # the recipe that the run was started with
        self.log = path / "run.log"
        self.lock = path / "run.lock"
        self.probe = path / "probe"
        self.joint = path / "joint"
        self.pipelines = (
            path / "pipelines.json"
        )  # what each pipeline took: draws, steps, tokens, time, memory
        self.overlap = path / "overlap.json"  # what training records share with test data, if the recipe asks
        self.geometry = path / "vectors.json"  # the Gram matrix of the task vectors
        self.report = path / "report.html"
        self.table = path / "table.json"  # scores of all models on all tasks
        self.analysis = path / "analysis" / "analysis.json"
        self.overlap_section = path / "overlap" / "section.html"  # the contamination check, for the report
        self.cache = path / "cache"  # embeddings and tokens; can be made again

    @property
    def sections(self) -> list[Path]:
        """HTML that other rooms write for the report, one file each: `<folder>/section.html`."""
        return sorted(self.path.glob("*/section.html"))

    def rival(self, name: str) -> Path:
        """A joint model; a run may have several."""
        return self.joint if name == "joint" else self.path / "joints" / name

    def stage(self, name: str) -> Path:
        """A checkpoint of the iterative pipeline."""
        return self.path / "iterative" / name

    def bag(self, name: str) -> Path:
        """A model of the bagging pipeline."""
        return self.path / "bagging" / name

    def specialist(self, task: str) -> Path:
        """The model that was trained on one task."""
        return self.path / "specialists" / task

    def merged(self, name: str) -> Path:
        """A merged model."""
        return self.path / "merged" / name

    def places(self, name: str) -> dict[Path, str]:
        """Where a model called `name` may be, and the job that makes it there."""
        return {
            self.merged(name): f"merge/{name}",
            self.specialist(name): f"specialist/{name}",
            self.rival(name): "joint" if name == "joint" else f"joint/{name}",
            self.stage(name): f"iterative/{name}",
            self.bag(name): f"bagging/{name}",
        }

    def mark(self, job: str) -> Path:
        """The file that says that `job` is finished, and from which inputs."""
        return self.path / "jobs" / f"{job.replace('/', '.')}.json"

    def position(self, name: str) -> Path:
        """The result of the search behind the merge `name`, as JSON."""
        return self.path / "positions" / f"{name}.json"

    def trajectory(self, name: str) -> Path:
        """One line of JSON per step of the search behind the merge `name`."""
        return self.path / "positions" / f"{name}.trajectory.jsonl"

    def coefficients(self, name: str) -> Path:
        """What `selfpos merge --coefficients` applies again to the same vectors, for the merge `name`."""
        return self.path / "positions" / f"{name}.coefficients.json"

    def scores(self, model: str) -> Path:
        """MTEB result files of `model`, in MTEB's layout."""
        return self.path / "scores" / model
