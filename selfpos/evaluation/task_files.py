"""The user's own evaluation tasks: one YAML file names type, files, columns and settings.

    name: SupportPairs           # under which its scores are filed
    type: pair-classification    # or sts, classification, clustering, reranking, retrieval
    files: {test: pairs.csv}     # beside this file; see EXAMPLES
    columns: {sentence1: question, sentence2: other, label: same}   # where the file's names are unusual
    settings: {}                 # what else decides the score; by type below

Use it as `selfpos eval-mteb MODEL --tasks support.yaml`, or by the same name among `tasks` of a recipe.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from selfpos.data.beir import Beir
from selfpos.errors import SelfposError, nearest
from selfpos.evaluation.local_data import read_split
from selfpos.evaluation.tasks import Splits, dataset_of, new_task
from selfpos.recipe import Name, Settings, load_settings, validate
from selfpos.tasks import get_task

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

SUFFIXES = (".yaml", ".yml")
EXAMPLES = {  # of `files`, by type; the names in one of them must be given
    "retrieval": [{"test": "questions-and-answers.jsonl"}, {"folder": "BEIR-FOLDER"}],
    "classification": [{"train": "train.csv", "test": "test.csv"}],
}
OTHERS = [{"test": "test.csv"}]
MOST_DRAWS, MOST_TEXTS = 1_000, 10_000_000


class ClassificationSettings(Settings):
    """How mteb trains and tests its logistic regression."""

    samples_per_label: int = Field(8, ge=1, le=MOST_TEXTS, description="training texts drawn of each label")
    n_experiments: int = Field(10, ge=1, le=MOST_DRAWS, description="draws; the score is their mean")
    seed: int = Field(42, ge=0)


class ClusteringSettings(Settings):
    """How mteb draws the documents that it clusters: all of them here, for 4 % of a user's 200 would be 8."""

    max_fraction_of_documents_to_embed: float | None = Field(None, gt=0, le=1)
    max_document_to_embed: int | None = Field(None, ge=2, le=MOST_TEXTS)
    max_documents_per_cluster: int = Field(
        16_384, ge=2, le=MOST_TEXTS, description="documents in one clustering, repeated"
    )
    n_clusters: int = Field(10, ge=1, le=MOST_DRAWS, description="clusterings; the score is their mean")
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _one_limit(self) -> ClusteringSettings:
        if None not in (self.max_fraction_of_documents_to_embed, self.max_document_to_embed):
            raise ValueError("give 'max_fraction_of_documents_to_embed' or 'max_document_to_embed', not both")
        return self


class RetrievalSettings(Settings):
    """What mteb ranks."""

    ignore_identical_ids: bool = Field(
        False, description="leave the document with a query's id out of that query's ranking"
    )


class NoSettings(Settings):
    """Of the types whose score follows from the data alone."""


SETTINGS: dict[str, type[Settings]] = {
    "classification": ClassificationSettings,
    "clustering": ClusteringSettings,
    "retrieval": RetrievalSettings,
}


class TaskDeclaration(Settings):
    """One task in one file."""

    name: Name
    type: Literal["sts", "pair-classification", "classification", "clustering", "reranking", "retrieval"]
    files: dict[Literal["train", "test", "folder"], str] = Field(min_length=1)
    columns: dict[str, str] = Field(default={}, description="our column -> the file's, where they differ")
    description: str = "A task of the user's own."
    settings: dict[str, Any] = Field(default={}, description="what decides the score beside the data")


def load_task_file(file: Path) -> AbsTask:
    """The task that `file` declares. Its data is checked now, and read again when the task is first run.

    The data revision is a hash of the records and settings.
    """
    task = load_settings(file, TaskDeclaration, "task")
    examples = EXAMPLES.get(task.type, OTHERS)
    if set(task.files) not in [set(example) for example in examples]:
        shown = " or ".join(
            "files: {" + ", ".join(f"{split}: {path}" for split, path in example.items()) + "}"
            for example in examples
        )
        raise SelfposError(
            f"task file {file}: a {task.type} task has {shown}; found {', '.join(sorted(task.files))}"
        )
    columns = {name: theirs for name, theirs in task.columns.items() if name != "query_id"}  # not needed
    known = [] if "folder" in task.files else list(get_task(task.type).columns)
    for column in columns:
        if column not in known:
            raise SelfposError(
                f"task file {file}: a {task.type} task has {', '.join(known) or 'no columns'}, "
                f"not '{column}'{nearest(column, known)}"
            )
    settings = validate(SETTINGS.get(task.type, NoSettings), task.settings, f"task file {file}, settings")
    paths: dict[str, Path] = {
        "test" if split == "folder" else split: file.parent / path for split, path in task.files.items()
    }
    try:
        splits, left_out = _read(task.type, paths, columns)
    except SelfposError as error:
        raise type(error)(f"task file {file}: {error}") from None
    check_records(task.type, splits, f"task file {file}")
    content = repr((task.type, settings, splits))

    def load() -> Any:
        data = dataset_of(task.type, _read(task.type, paths, columns)[0])
        return {"default": data} if task.type in ("retrieval", "reranking") else data

    return new_task(
        task.type,
        task.name,
        task.description,
        load,
        revision="local-" + hashlib.sha256(content.encode()).hexdigest()[:16],
        source=f"own/{task.name}",
        remark="; ".join([describe(task.type, splits, settings), *left_out]),
        **settings.model_dump(),
    )


def task_name(name: str) -> str:
    """The name under which scores of the task `name` are filed; a task file says it itself."""
    return load_settings(Path(name), TaskDeclaration, "task").name if name.endswith(SUFFIXES) else name


def _read(kind: str, paths: dict[str, Path], columns: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Split → records, and what was left out of each, in words."""
    loaded = {split: read_split(kind, path, split, columns) for split, path in paths.items()}
    remarks = [f"{split}: {remark}" for split, (_, remark) in loaded.items() if remark]
    return {split: records for split, (records, _) in loaded.items()}, remarks


def check_records(kind: str, splits: Splits, where: str) -> None:
    """Raise SelfposError for records on which mteb would compute nothing, or nonsense."""
    if kind in ("sts", "retrieval", "reranking"):
        return
    labels = {split: {str(record["label"]) for record in records} for split, records in splits.items()}
    for split, found in labels.items():
        if len(found) < 2:
            raise SelfposError(
                f"{where}: all {len(splits[split])} records of {split} have the label "
                f"{next(iter(found), '')}; a task needs two labels or more"
            )
    if kind == "classification" and (strange := sorted(labels["test"] - labels["train"])):
        raise SelfposError(
            f"{where}: {len(strange)} labels of test are not in train ({', '.join(strange[:5])}), so that no "
            "classifier can learn them; add training texts, or remove those records"
        )


def describe(kind: str, splits: Splits, settings: Settings) -> str:
    """How much data there is, and every setting that decides the score, in words."""
    parts = [f"own {kind} task"]
    for split, records in splits.items():
        if isinstance(records, Beir):
            same = len(records.relevant.keys() & records.documents.keys())
            parts.append(f"{len(records.relevant)} queries, {len(records.documents)} documents")
            if same:
                parts.append(f"{same} queries have the id of a document")
        else:
            parts.append(f"{split}: {len(records)} records")
    parts += [f"{name} {value}" for name, value in settings.model_dump().items()]
    return "; ".join(parts)
