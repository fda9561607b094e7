"""Score files: MTEB's result files, and the note of what was scored last, written and read here only.

A folder of scores holds `results/<model>/<revision>/<task>.json` as MTEB writes them, and a `last.json` with
the scores of the model scored last, and type and metric of every task that was ever scored there: MTEB does
not know the user's own tasks.

A score that is not a number (NaN, as MTEB writes where all gold scores are alike) is no score: `read_scores`
and `read_result` leave it out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pydantic import AliasChoices, BaseModel, Field

from selfpos.console import log
from selfpos.errors import SelfposError
from selfpos.scores.examples import examples_file, read_examples
from selfpos.scores.intervals import centred, percentile_interval, student_interval
from selfpos.storage.documents import parse_json, read_text

if TYPE_CHECKING:
    import numpy as np
    from mteb.abstasks import AbsTask
    from mteb.results import TaskResult

LAST = "last.json"
RESAMPLES = 2000  # behind the interval of one score


@dataclass(frozen=True)
class TaskScore:
    """One model on one task: the mean main score over splits and subsets, from MTEB's `file`."""

    task: str
    type: str
    metric: str
    main_score: float
    file: Path


@dataclass(frozen=True)
class SubsetScore:
    """MTEB's main score, between 0 and 1, on one split and language subset of a task.

    `draws` are the scores of MTEB's repeated draws of samples when the main score is their mean.
    """

    split: str
    subset: str
    value: float
    draws: tuple[float, ...] = ()


@dataclass(frozen=True)
class Result:
    """One result file of MTEB.

    `data_revision` is that of the task's data, `revision` and `model` those it is filed under.
    """

    task: str
    data_revision: str | None
    mteb_version: str | None
    scores: tuple[SubsetScore, ...]
    file: Path = field(compare=False)

    @property
    def model(self) -> str:
        return self.file.parent.parent.name.replace("__", "/")

    @property
    def revision(self) -> str:
        return self.file.parent.name

    @property
    def mean(self) -> float:
        """Mean over splits and subsets."""
        return fmean(score.value for score in self.scores)

    def interval(self, score: SubsetScore) -> tuple[float, float] | None:
        """The 95 % interval of `score`: over its resampled examples if any, else over its `draws`."""
        if len(self.file.parents) > 3 and (examples := examples_file(self.file)).is_file():
            state = examples.stat()
            written = state.st_ino, state.st_mtime_ns, state.st_size
            found = _resampled(examples, str(self.data_revision), score.split, score.subset, written)
            if found is not None:
                return percentile_interval(centred(found, score.value))
        return student_interval(score.draws)


@lru_cache(maxsize=1024)
def _resampled(
    examples: Path, revision: str, split: str, subset: str, written: tuple[int, ...]
) -> np.ndarray | None:
    """The score on `RESAMPLES` resamples of a split and subset in the file `examples`; None where it is not
    in there. Kept while the file is as it was `written`: the card of every merge of a run shows them.
    """
    from selfpos.scores.examples import resamples

    for part in read_examples(examples, revision):
        if (part.split, part.subset) == (split, subset):
            return resamples([part], RESAMPLES, seed=0)[:, 0]
    return None


def task_score(task: AbsTask, result: TaskResult, file: Path) -> TaskScore:
    """The score in `result` over exactly the splits and subsets of `task`."""
    value = result.get_score(splits=list(task.eval_splits), languages=None)
    name, kind, metric = task.metadata.name, str(task.metadata.type), str(task.metadata.main_score)
    return TaskScore(name, kind, metric, float(value), file)


def write_last(out: Path, model: str, revision: str, scores: Mapping[str, TaskScore]) -> None:
    """Record in `out` what was scored last, in place of a `last.json` that is damaged."""
    from selfpos.storage.atomic import write_text

    kinds = {}
    try:
        kinds = _kinds(_read_last(out / LAST)) if (out / LAST).is_file() else {}
    except SelfposError as error:
        log.warning("%s; it is written afresh", error)
    files = {name: score.file.relative_to(out) for name, score in scores.items()}
    write_text(out / LAST, last_json(model, revision, scores, files, kinds))


def last_json(
    model: str,
    revision: str,
    scores: Mapping[str, TaskScore],
    files: Mapping[str, Path],
    kinds: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """The content of `last.json`; `files` are the result files, relative to the folder of scores, and
    `kinds` the types and metrics of tasks scored before.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for name, score in scores.items():
        value = score.main_score if isfinite(score.main_score) else None
        tasks[name] = {"type": score.type, "metric": score.metric, "main_score": value}
        tasks[name]["file"] = files[name].as_posix()
    content: dict[str, Any] = {"model": model, "revision": revision, "tasks": tasks}
    if before := {name: list(kind) for name, kind in (kinds or {}).items() if name not in tasks}:
        content["scored_before"] = before
    return json.dumps(content, indent=1) + "\n"


def known_tasks(root: Path) -> dict[str, tuple[str, str]]:
    """Task → its type and metric, as every `last.json` below `root` has them."""
    kinds: dict[str, tuple[str, str]] = {}
    for file in sorted(root.rglob(LAST)):
        kinds |= _kinds(_read_last(file))
    return kinds


class _Entry(BaseModel):
    type: str
    metric: str
    main_score: float | None
    file: str


class _Last(BaseModel):
    """A `last.json`."""

    tasks: dict[str, _Entry]
    scored_before: dict[str, tuple[str, str]] = Field(
        {}, validation_alias=AliasChoices("scored_before", "scored before")
    )


def _kinds(last: _Last) -> dict[str, tuple[str, str]]:
    """Task → its type and metric, of all tasks in `last`."""
    return last.scored_before | {name: (entry.type, entry.metric) for name, entry in last.tasks.items()}


def _read_last(file: Path) -> _Last:
    """The content of a `last.json`. Raises SelfposError where it is damaged."""
    try:
        return _Last.model_validate_json(file.read_bytes())
    except ValueError:
        raise SelfposError(f"{file} is damaged; score the model again with `selfpos eval-mteb`") from None


def read_scores(folder: str | Path) -> dict[str, TaskScore]:
    """Read the scores of the model that `evaluate` scored last in `folder`.

    Args:
        folder: The folder of scores, which holds `last.json`.

    Returns:
        Task name → score, in the order of the tasks.

    Raises:
        SelfposError: When there is no `last.json`, or it is damaged.
    """
    folder = Path(folder)
    file = folder / LAST
    if not file.is_file():
        raise SelfposError(
            f"there are no scores in {folder}: it has no {LAST}; score a model with `selfpos eval-mteb`"
        )
    return {
        name: TaskScore(name, entry.type, entry.metric, entry.main_score, folder / entry.file)
        for name, entry in _read_last(file).tasks.items()
        if entry.main_score is not None and isfinite(entry.main_score)
    }


def last_scores(root: Path) -> list[TaskScore]:
    """The scores in every `last.json` below `root`."""
    scores: list[TaskScore] = []
    for file in sorted(root.rglob(LAST)):
        scores += read_scores(file.parent).values()
    return scores


def read_result(file: Path, metric: str | None = None) -> Result | None:
    """The result in MTEB's file `file`, with its draws if `metric` is known.

    None for other JSON files, and for a result with a score that is not a number.

    Raises SelfposError when the file is damaged.
    """
    try:
        record = parse_json(read_text(file), strict=False)
        if not isinstance(record, dict) or "task_name" not in record or "scores" not in record:
            return None
        scores: list[SubsetScore] = []
        for split, subsets in record["scores"].items():
            for entry in subsets:
                subset = str(entry.get("hf_subset", "default"))
                value = float("nan" if entry["main_score"] is None else entry["main_score"])
                scores.append(SubsetScore(split, subset, value, _draws(entry, metric)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise SelfposError(
            f"{file} is not a result file of MTEB; remove it, and score again with `selfpos eval-mteb`"
        ) from None
    if not all(isfinite(score.value) for score in scores):
        return None
    version = record.get("mteb_version")
    return Result(str(record["task_name"]), record.get("dataset_revision"), version, tuple(scores), file)


def _draws(entry: Mapping[str, Any], metric: str | None) -> tuple[float, ...]:
    """The main score of each of MTEB's repeated draws, if the main score is their mean."""
    values = [draw.get(metric) for draw in entry.get("scores_per_experiment") or () if isinstance(draw, dict)]
    if not values:
        for level in (entry.get("v_measures") or {}).values():
            values += level
    draws = tuple(float(value) for value in values if isinstance(value, int | float))
    is_mean = draws and len(draws) == len(values) and abs(fmean(draws) - entry["main_score"]) <= 1e-6
    return draws if is_mean else ()
