"""The user's own evaluation tasks: one YAML file names type, files and columns.

    name: SupportPairs           # under which its scores are filed
    type: pair-classification    # or sts, classification, clustering, reranking, retrieval
    files: {test: pairs.csv}     # beside this file; classification also has train, retrieval a BEIR folder
    columns: {sentence1: question, sentence2: other, label: same}   # where the file's names differ

Use it as `selfpos eval-mteb MODEL --tasks support.yaml`, or by the same name among `tasks` of a recipe.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from selfpos.data import files
from selfpos.errors import SelfposError, nearest
from selfpos.evaluation.local_data import dataset_of
from selfpos.evaluation.tasks import new_task
from selfpos.recipe import Name, Settings, load_settings

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

SUFFIXES = (".yaml", ".yml")
COLUMNS = {
    "sts": ("sentence1", "sentence2", "score"),
    "pair-classification": ("sentence1", "sentence2", "label"),
    "classification": ("text", "label"),
    "clustering": ("text", "label"),
    "reranking": ("query_id", "query", "positive", "negative"),
    "retrieval": (),
}
FILES = {"retrieval": {"folder"}, "classification": {"train", "test"}}  # of other types: test


class TaskDeclaration(Settings):
    """One task in one file."""

    name: Name
    type: Literal["sts", "pair-classification", "classification", "clustering", "reranking", "retrieval"]
    files: dict[Literal["train", "test", "folder"], str] = Field(min_length=1)
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column -> that of the file, where they differ"
    )
    description: str = "A task of the user's own."


def load_task_file(file: Path) -> AbsTask:
    """The task that `file` declares. Its data is checked now, and read again when the task is first run.

    The data revision is a hash of the records. Raises SelfposError naming the file, field or column that is
    wrong.
    """
    task = load_settings(file, TaskDeclaration, "task")
    expected = FILES.get(task.type, {"test"})
    if set(task.files) != expected:
        raise SelfposError(
            f"task file {file}: a {task.type} task has files {', '.join(sorted(expected))}; "
            f"found {', '.join(sorted(task.files))}"
        )
    known = COLUMNS[task.type]
    for column in task.columns:
        if column not in known:
            raise SelfposError(
                f"task file {file}: a {task.type} task has {', '.join(known) or 'no columns'}, "
                f"not '{column}'{nearest(column, known)}"
            )
    paths = {split: file.parent / path for split, path in task.files.items()}
    splits = _read(task, paths)
    content = repr((task.type, sorted(task.columns.items()), splits))
    revision = "local-" + hashlib.sha256(content.encode()).hexdigest()[:16]

    def load() -> Any:
        data = dataset_of(task.type, _read(task, paths))
        return {"default": data} if task.type in ("retrieval", "reranking") else data

    return new_task(
        task.type, task.name, task.description, load, revision=revision, source=f"own/{task.name}"
    )


def task_name(name: str) -> str:
    """The name under which scores of the task `name` are filed; a task file says it itself."""
    return load_settings(Path(name), TaskDeclaration, "task").name if name.endswith(SUFFIXES) else name


def _read(task: TaskDeclaration, paths: dict[Any, Path]) -> dict[str, Any]:
    """Split → records with our columns; for retrieval the result of `files.read_beir`."""
    if task.type == "retrieval":
        return {"test": files.read_beir(paths["folder"], "test")}
    records = {}
    for split, path in paths.items():
        records[split] = [_record(task, row, path) for row in files.read_records(path)]
    return records


def _record(task: TaskDeclaration, row: dict[str, Any], path: Path) -> dict[str, Any]:
    record = {}
    for column in COLUMNS[task.type]:
        theirs = task.columns.get(column, column)
        if row.get(theirs) is None:
            raise SelfposError(
                f"{path}: a record has no '{theirs}' (for {column}); found "
                f"{', '.join(row)}{nearest(theirs, row)}"
            )
        record[column] = row[theirs]
    if task.type == "pair-classification" and record["label"] not in (0, 1):
        raise SelfposError(f"{path}: the label of a pair is 0 or 1, found {record['label']!r}")
    return record
