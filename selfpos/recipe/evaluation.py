"""What models are scored on and looked at for, and what jobs ask of a cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selfpos.recipe.settings import Settings


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
        0.8, gt=0, le=1, description="Jaccard similarity of near duplicates; null: only word for word"
    )


class AnalysisSettings(Settings):
    """What `selfpos analyse` measures by."""

    records: Literal["probe", "training"] = Field(
        "probe", description="whose gradients: of the held-out records, or of those trained on"
    )
    batches: int = Field(8, ge=2, description="of each task, at each point; intervals need 3")
    batch_size: int = Field(32, ge=4, description="records of a batch")
    points: list[str] = Field(
        default_factory=list,
        description="where gradients are measured: base, and models of the run; all of them when absent",
    )
    memory: float = Field(1.0, gt=0, description="GiB of gradients held at once; less memory, more passes")
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
