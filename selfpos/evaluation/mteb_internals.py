"""The private interfaces of mteb that selfpos uses; tests/evaluation/test_mteb_internals.py names changed
ones.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass
class Evaluated:
    """What mteb computed on one split and subset of a task.

    `random` is the task's generator as it was before. `query_scores` are query → measure → value.
    """

    data: Any
    split: str
    subset: str
    random: Any = None
    predictions: Any = None
    query_scores: Mapping[str, Mapping[str, float]] | None = None


@contextmanager
def observed(task: AbsTask, done: Callable[[Evaluated, Mapping[str, Any]], object]) -> Iterator[None]:
    """While the block runs, call `done` with what mteb computed on each subset of `task`, and its scores."""
    evaluate = task._evaluate_subset
    current: list[Evaluated] = []

    def evaluate_subset(model: Any, data: Any, *, hf_split: str, hf_subset: str, **options: Any) -> Any:
        evaluated = Evaluated(data, hf_split, hf_subset, copy.deepcopy(getattr(task, "rng_state", None)))
        current[:] = [evaluated]
        options["prediction_folder"] = Path()  # makes mteb collect predictions; nothing is written there
        scores = evaluate(model, data, hf_split=hf_split, hf_subset=hf_subset, **options)
        done(evaluated, scores)
        return scores

    def save_predictions(predictions: Any, *_: Any, **__: Any) -> None:
        current[0].predictions = predictions

    def specific_scores(scores: Any, *rest: Any, **options: Any) -> Any:
        current[0].query_scores = scores
        return type(task).task_specific_scores(task, scores, *rest, **options)  # type: ignore[attr-defined]

    hooks: dict[str, Any] = {"_evaluate_subset": evaluate_subset, "_save_task_predictions": save_predictions}
    if hasattr(task, "task_specific_scores"):
        hooks["task_specific_scores"] = specific_scores
    for name, hook in hooks.items():
        setattr(task, name, hook)
    try:
        yield
    finally:
        for name in hooks:
            delattr(task, name)


def columns_of(task: AbsTask) -> dict[str, str]:
    """The names that mteb's class has for the columns of our layout, where they are not the usual ones."""
    names = ("input_column_name", "label_column_name", "input1_column_name", "input2_column_name")
    text, label, *inputs = (getattr(task, name, None) for name in names)
    first, second = getattr(task, "column_names", None) or inputs
    named = {"text": text, "sentences": text, "label": label, "labels": label}
    named |= {"sentence1": first, "sentence2": second}
    return {ours: theirs for ours, theirs in named.items() if isinstance(theirs, str) and ours != theirs}


def set_splits(task: AbsTask, splits: Sequence[str], subsets: Sequence[str] | None) -> None:
    """Make `task` evaluate exactly these splits and subsets."""
    task._eval_splits = list(splits)
    task.hf_subsets = subsets  # type: ignore[assignment]


def split_statistics(task: AbsTask, split: str, subset: str) -> Mapping[str, Any]:
    """Counts of rows and characters of a loaded task, as mteb publishes them."""
    nested = subset in (
        task.dataset or {}
    )  # retrieval is always kept by subset, other data if there are several
    with redirect_stderr(io.StringIO()):  # its progress bars
        statistics: Mapping[str, Any] = task._calculate_descriptive_statistics_from_split(
            split, hf_subset=subset if nested else None
        )
    return statistics


def hub_category(metadata: Any) -> str:
    """The Hub's name of the kind of task, such as `sentence-similarity`."""
    return str(metadata._hf_task_type()[0])


def hub_result(file: Path) -> str:
    """MTEB's result file as the YAML that the Hub's leaderboards read."""
    from mteb.results import TaskResult

    return str(TaskResult.from_disk(file)._to_hf_benchmark_result().to_yaml())
