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
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from selfpos.data.beir import Beir
from selfpos.errors import SelfposError, nearest
from selfpos.evaluation.local_data import CORPUS_TASKS, read_split
from selfpos.evaluation.tasks import Splits, class_name, dataset_of, describe_task, fault_of_records, new_task
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
    files: dict[str, str]
    columns: dict[str, str] = Field(default={}, description="our column -> the file's, where they differ")
    description: str = "A task of the user's own."
    settings: dict[str, Any] = Field(default={}, description="what decides the score beside the data")


def load_task_file(file: Path) -> AbsTask:
    """The task that `file` declares. Its data is checked now, and read again when the task is first run.

    The data revision is a hash of the records and settings.
    """
    task = load_settings(file, TaskDeclaration, "task")
    if describe_task(task.name).type is not None or task.name in CORPUS_TASKS:
        raise SelfposError(
            f"task file {file}: {task.name} is the name of another task, of MTEB or selfpos; give yours a "
            "name of its own, under which its scores are filed"
        )
    examples = EXAMPLES.get(task.type, OTHERS)
    if set(task.files) not in [set(example) for example in examples]:
        shown = " or ".join(
            "files: {" + ", ".join(f"{split}: {path}" for split, path in example.items()) + "}"
            for example in examples
        )
        present = ", ".join(sorted(task.files)) or "none"
        raise SelfposError(f"task file {file}: a {task.type} task has {shown}; found {present}")
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
    if fault := fault_of_records(task.type, splits):
        raise SelfposError(f"task file {file}: {fault}")
    if task.type == "classification" and len(splits["test"]) == _seen(splits):
        raise SelfposError(
            f"task file {file}: all texts of test are in train, too, so that the score would be of what the "
            "classifier has seen; give other texts to one of them"
        )
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


def describe(kind: str, splits: Splits, settings: Settings) -> str:
    """How much data there is, and every setting that decides the score, in words."""
    parts = [f"own {kind} task"]
    for split, records in splits.items():
        if isinstance(records, Beir):
            parts += _described(records)
        else:
            parts.append(f"{split}: {len(records)} records")
    parts += [f"{name} {value}" for name, value in settings.model_dump().items()]
    if isinstance(settings, ClassificationSettings):
        counts = Counter(class_name(record["label"]) for record in splits["train"])
        if (fewest := min(counts.values())) < settings.samples_per_label:
            parts.append(f"train has labels of {fewest} texts, of which no more can be drawn")
        if seen := _seen(splits):
            parts.append(f"{seen} texts of test are in train, too")
    return "; ".join(parts)


def _seen(splits: Splits) -> int:
    """How many texts of test are in train, too."""
    texts = {record["text"] for record in splits["train"]}
    return sum(record["text"] in texts for record in splits["test"])


def _described(records: Beir) -> list[str]:
    parts = [f"{len(records.relevant)} queries, {len(records.documents)} documents"]
    if same := len(records.relevant.keys() & records.documents.keys()):
        parts.append(f"{same} queries have the id of a document")
    if unanswered := sum(max(grades.values()) <= 0 for grades in records.relevant.values()):
        parts.append(f"{unanswered} queries have no right document and count as 0, as in mteb")
    return parts
