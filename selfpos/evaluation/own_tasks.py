"""Evaluation tasks of the user's own: one YAML file says type, files and columns, and is named like any task.

    name: SupportPairs                 # under which its scores are filed
    type: pair-classification          # sts, classification, clustering, pair-classification, reranking or retrieval
    files: {test: pairs.csv}           # beside this file; classification has train, too; retrieval names a folder in the BEIR layout
    columns: {sentence1: question, sentence2: other, label: same}   # ours: the file's, where they differ

`selfpos eval-mteb MODEL --tasks support.yaml`, or the same word among `tasks` of a recipe.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from selfpos.data import files
from selfpos.errors import SelfposError, nearest
from selfpos.evaluation import local_data
from selfpos.evaluation.tasks import new_task, retrieval_data
from selfpos.recipe import Name, Settings, load_settings

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

ENDINGS = (".yaml", ".yml")
COLUMNS = {
    "sts": ("sentence1", "sentence2", "score"),
    "pair-classification": ("sentence1", "sentence2", "label"),
    "classification": ("text", "label"),
    "clustering": ("text", "label"),
    "reranking": ("query_id", "query", "positive", "negative"),
    "retrieval": (),
}


class TaskDeclaration(Settings):
    """One task in one file."""

    name: Name
    type: Literal["sts", "pair-classification", "classification", "clustering", "reranking", "retrieval"]
    files: dict[Literal["train", "test", "folder"], str] = Field(min_length=1)
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column -> the file's, where they differ"
    )
    description: str = "A task of the user's own."


def own_task(file: Path) -> AbsTask:
    """The task that `file` declares. Its data is checked here, and read when it is first run; the data revision is a hash of the files.

    Raises SelfposError naming the file, field or column that is wrong.
    """
    task = load_settings(file, TaskDeclaration, "task")
    wanted = {"retrieval": {"folder"}, "classification": {"train", "test"}}.get(task.type, {"test"})
    if set(task.files) != wanted:
        raise SelfposError(
            f"task file {file}: a {task.type} task has files {', '.join(sorted(wanted))}; found {', '.join(sorted(task.files))}"
        )
    unknown = [column for column in task.columns if column not in COLUMNS[task.type]]
    if unknown:
        known = ", ".join(COLUMNS[task.type]) or "no columns"
        raise SelfposError(
            f"task file {file}: a {task.type} task has {known}, not '{unknown[0]}'{nearest(unknown[0], COLUMNS[task.type])}"
        )
    places = {split: file.parent / place for split, place in task.files.items()}
    parts = _read(task, places)  # whatever is wrong with the data is said now, not after hours
    made: Any = {"retrieval": _retrieval, "reranking": _reranking}.get(task.type, _table)
    revision = (
        "local-"
        + hashlib.sha256(repr((task.type, sorted(task.columns.items()), parts)).encode()).hexdigest()[:16]
    )
    return new_task(
        task.type,
        task.name,
        task.description,
        lambda: made(task, _read(task, places)),
        revision=revision,
        source=f"own/{task.name}",
    )


def task_name(word: str) -> str:
    """Under which name the scores of the task `word` are filed: its own, or that which the task file `word` gives it."""
    return load_settings(Path(word), TaskDeclaration, "task").name if word.endswith(ENDINGS) else word


def _read(task: TaskDeclaration, places: dict[Any, Path]) -> dict[str, Any]:
    """Split -> records with our columns; of a retrieval task, what `files.read_beir` gives."""
    if task.type == "retrieval":
        return {"test": files.read_beir(places["folder"], "test")}
    return {
        split: [_record(task, row, place) for row in files.read_records(place)]
        for split, place in places.items()
    }


def _record(task: TaskDeclaration, row: dict[str, Any], place: Path) -> dict[str, Any]:
    record = {}
    for column in COLUMNS[task.type]:
        theirs = task.columns.get(column, column)
        if row.get(theirs) is None:
            raise SelfposError(
                f"{place}: a record has no '{theirs}' (for {column}); found {', '.join(row)}{nearest(theirs, row)}"
            )
        record[column] = row[theirs]
    if task.type == "pair-classification" and record["label"] not in (0, 1):
        raise SelfposError(f"{place}: the label of a pair is 0 or 1, found {record['label']!r}")
    return record


def _table(task: TaskDeclaration, parts: dict[str, Any]) -> Any:
    from datasets import DatasetDict

    kind = local_data.LocalSet(task.type, {})
    return DatasetDict({split: local_data.columns(kind, rows, parts) for split, rows in parts.items()})


def _reranking(task: TaskDeclaration, parts: dict[str, Any]) -> Any:
    return {"default": {split: local_data.pools(rows) for split, rows in parts.items()}}


def _retrieval(task: TaskDeclaration, parts: dict[str, Any]) -> Any:
    return {"default": {split: retrieval_data(*found) for split, found in parts.items()}}
