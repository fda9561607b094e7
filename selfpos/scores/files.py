"""Scores as mteb wrote them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask
    from mteb.results import TaskResult

# Beside MTEB's `results/`: which model was scored there last, and on what.
LAST = "last.json"


@dataclass(frozen=True)
class TaskScore:
    """The score of one model on one task: the mean of the main score over the task's splits and subsets; `file` is MTEB's own result file."""

    task: str
    type: str
    metric: str
    main_score: float
    file: Path


def score_of(task: AbsTask, result: TaskResult, file: Path) -> TaskScore:
    """The score in `result` over exactly the splits and subsets that `task` asks for."""
    value = result.get_score(splits=list(task.eval_splits), languages=None)
    return TaskScore(
        task.metadata.name, str(task.metadata.type), str(task.metadata.main_score), float(value), file
    )


def write_last(out: Path, model: str, revision: str, scores: dict[str, TaskScore]) -> None:
    """Note in `out` what was scored last."""
    from selfpos.storage.atomic import write_text

    tasks = {
        name: {
            "type": score.type,
            "metric": score.metric,
            "main_score": score.main_score,
            "file": score.file.relative_to(out).as_posix(),
        }
        for name, score in scores.items()
    }
    write_text(
        out / LAST, json.dumps({"model": model, "revision": revision, "tasks": tasks}, indent=1) + "\n"
    )


def read_scores(folder: Path) -> dict[str, TaskScore]:
    """The scores of the model that `evaluate` scored last in `folder`, in the order of its tasks. Raises SelfposError when there are none."""
    file = folder / LAST
    if not file.is_file():
        raise SelfposError(
            f"there are no scores in {folder}: it has no {LAST}; score a model with `selfpos eval-mteb`"
        )
    try:
        tasks: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["tasks"]
        return {
            name: TaskScore(
                name, found["type"], found["metric"], float(found["main_score"]), folder / found["file"]
            )
            for name, found in tasks.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SelfposError(f"{file} is damaged; score the model again with `selfpos eval-mteb`") from None
