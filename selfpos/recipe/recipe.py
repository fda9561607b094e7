"""A whole run; what its models are scored on and looked at for, and what its jobs ask of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from selfpos.errors import SelfposError, nearest
from selfpos.recipe.data import ProbeSettings, TaskSource
from selfpos.recipe.merging import MergeSettings
from selfpos.recipe.settings import Name, Settings, load_settings
from selfpos.recipe.shipped import find_recipe
from selfpos.recipe.training import (
    BaggingSettings,
    BudgetSettings,
    IterativeSettings,
    JointField,
    JointSettings,
    TrainingSettings,
)
from selfpos.storage.documents import parse_yaml, read_text
from selfpos.storage.locate import without_folders


class EvaluationSettings(Settings):
    """What every model of the run is scored on."""

    tasks: list[str] = Field(
        default_factory=lambda: ["corpus"],
        min_length=1,
        description="MTEB task names; 'corpus': those of the embedded corpus",
    )
    local: list[str] = Field(
        default_factory=list,
        description="tasks scored besides when MTEB data is kept locally, such as 'selfpos-MRPC'",
    )
    benchmark: str | None = Field(None, description="MTEB benchmark whose tasks are added")
    data_dir: str | None = Field(None, description="folder with MTEB data kept locally")
    batch_size: int = Field(64, ge=1, description="texts embedded at once")
    cache: bool = Field(
        True,
        description="keep embeddings and tokens in the run's folder cache/; it may be removed at any time",
    )


class OverlapSettings(Settings):
    """The contamination check: whether training and probe records hold test items of the evaluation tasks."""

    remove: bool = Field(False, description="drop the records that do; the report is written in either case")
    threshold: float | None = Field(
        0.8, ge=0.01, le=1, description="Jaccard similarity of near duplicates; null: only word for word"
    )


class AnalysisSettings(Settings):
    """What `selfpos analyse` measures by."""

    records: Literal["probe", "training"] = Field(
        "probe", description="whose gradients: of the held-out records, or of those trained on"
    )
    batches: int = Field(8, ge=2, le=1_000, description="of each task, at each point; intervals need 3")
    batch_size: int = Field(32, ge=4, le=1_000_000, description="records of a batch")
    points: list[str] = Field(
        default_factory=list,
        description="models at which gradients are measured: base, and those of the run; all when absent",
    )
    memory: float = Field(
        1.0, gt=0, le=100_000, description="GiB of gradients held at once; less memory, more passes"
    )
    arms: bool = Field(
        False,
        description="train small specialists on shares of the records, for equal epochs and for equal steps",
    )
    arm_steps: int = Field(32, ge=4, description="of the longest arm")
    arm_shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=lambda: [0.25, 0.5, 1.0],
        min_length=2,
        description="of the records that the longest arm sees once",
    )


class ResourceSettings(Settings):
    """What a job asks of a cluster (`selfpos run --ray`); it computes in as many threads as it has CPUs."""

    cpus: float = Field(1, gt=0, description="cores of a job, and its threads")
    gpus: float = Field(0, ge=0, description="a job that asks for none sees none")


class Recipe(Settings):
    """A whole run: specialists, joint models, merges, scores, report."""

    name: Name = Field(description="of the run")
    base: str = Field("all-MiniLM-L6-v2", description="model folder or name on the Hub")
    seed: int = Field(0, ge=0, lt=2**32, description="of all random choices")
    tasks: dict[Name, TaskSource] = Field(min_length=1, max_length=1000)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    joint: JointField | None = Field(
        default_factory=JointSettings, description="one setting, or name: setting of several joint models"
    )
    iterative: IterativeSettings | None = None
    bagging: BaggingSettings | None = None
    budget: BudgetSettings | None = Field(
        None, description="absent: each pipeline as long as its own settings say"
    )
    probe: ProbeSettings = Field(default_factory=ProbeSettings)
    merges: dict[Name, MergeSettings] = Field(min_length=1, max_length=1000)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    overlap: OverlapSettings | None = Field(None, description="absent: not checked")
    resources: dict[Literal["training", "merging", "evaluation"], ResourceSettings] = Field(
        default_factory=dict, description="of each job of a kind; one CPU when absent"
    )

    def as_yaml(self) -> str:
        """The fields that were given, as YAML text."""
        return _yaml(self.model_dump(mode="json", exclude_unset=True))

    @property
    def joints(self) -> dict[str, JointSettings]:
        """The joint models by name."""
        if isinstance(self.joint, JointSettings):
            return {"joint": self.joint}
        return self.joint or {}

    @property
    def stages(self) -> dict[str, str]:
        """The checkpoints of the iterative pipeline by name, in order → the task trained on last."""
        order = (self.iterative.order or list(self.tasks)) if self.iterative else []
        return {f"iterative-{number}-{task}": task for number, task in enumerate(order, start=1)}

    @property
    def bags(self) -> dict[str, float]:
        """The models of the bagging pipeline by name, in order → the share of the data trained on."""
        return {
            f"bagging-{number}": share
            for number, share in enumerate(self.bagging.shares if self.bagging else [], start=1)
        }

    @property
    def trained(self) -> list[str]:
        """Every model that is trained, by name, in the order of tables."""
        first = list(self.stages)[
            : int(self.iterative is not None and self.iterative.steps in (None, self.training.steps))
        ]  # a specialist
        return [*self.tasks, *self.joints, *(name for name in self.stages if name not in first), *self.bags]

    @model_validator(mode="after")
    def _iterative_names_every_task(self) -> Recipe:
        order = self.iterative.order if self.iterative else None
        if order and sorted(order) != sorted(self.tasks):
            raise ValueError(
                f"iterative.order must name every task once: {', '.join(self.tasks)} "
                f"(found {', '.join(order)})"
            )
        return self

    @model_validator(mode="after")
    def _merges_take_vectors_of_pipelines(self) -> Recipe:
        pipelines: dict[str, Any] = {"separate": True, "iterative": self.iterative, "bagging": self.bagging}
        for name, merge in self.merges.items():
            if pipelines[merge.vectors] is None:
                raise ValueError(
                    f"merge {name} takes the vectors of '{merge.vectors}', "
                    "a pipeline that the recipe does not have"
                )
        if self.bagging and all(merge.vectors != "bagging" for merge in self.merges.values()):
            raise ValueError(
                "'bagging' trains models to be merged, and no merge has 'vectors: bagging'; "
                "add one, as of method multi-slerp"
            )
        return self

    @model_validator(mode="after")
    def _ratios_and_surgery_fit_the_tasks(self) -> Recipe:
        ratios = {"probe.ratio": self.probe.ratio} | {name: mix.ratio for name, mix in self._mixed.items()}
        for name, ratio in ratios.items():
            for task in ratio:
                if task not in self.tasks:
                    raise ValueError(f"{name}: there is no task '{task}'{nearest(task, self.tasks)}")
        for name, mix in self._mixed.items():
            if mix.surgery and len(self.tasks) < 2:
                raise ValueError(f"{name}: gradient surgery is between tasks, and there is one task only")
        return self

    @model_validator(mode="after")
    def _budget_decides_the_steps(self) -> Recipe:
        for name, settings in {**self._mixed, "iterative": self.iterative}.items():
            if self.budget and settings is not None and settings.steps:
                raise ValueError(f"{name} has steps, which the budget decides; remove one of them")
        return self

    @property
    def _mixed(self) -> dict[str, Any]:
        """The trainings on a mixture of all tasks, by name."""
        mixed: dict[str, Any] = {**self.joints, "bagging": self.bagging}
        return {name: settings for name, settings in mixed.items() if settings is not None}


def load_recipe(path: str | Path) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: The YAML file, or the name of a recipe that comes with the package.

    Returns:
        The recipe.

    Raises:
        SelfposError: There is no such recipe; or naming each wrong field, and the nearest right name.
    """
    return load_settings(find_recipe(Path(path)), Recipe)


def recipe_for_others(file: Path) -> str:
    """The recipe in `file` as YAML text, of paths that are not relative the last part only.

    Raises SelfposError where the file is not YAML.
    """
    try:
        return _yaml(without_folders(parse_yaml(read_text(file))))
    except ValueError as error:
        raise SelfposError(f"{file} is not YAML: {error}") from None


def _yaml(data: Any) -> str:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
