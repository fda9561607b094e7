"""MTEB tasks on local files; `local_tasks.yaml` says which folders and fields hold the data of which task.

Our layout is a folder of JSON Lines per task, one file per split (`test.jsonl` or `test.jsonl.gz`), with
`text` and `label`, or `sentence1`, `sentence2` and `score` or `label`, or `query`, `positive` and `negative`;
retrieval sets are in the BEIR layout. The Hub's layout is `FOLDER/owner/name/` with the files of the data set
repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from selfpos.data import files
from selfpos.errors import OperationError
from selfpos.evaluation.mteb_internals import set_splits
from selfpos.evaluation.tasks import new_task, retrieval_data, with_data

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

LINES = (".jsonl", ".jsonl.gz")
HUB_FILES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".arrow")


@dataclass(frozen=True)
class LocalSet:
    """How local files hold the data of one task; the fields are described in `local_tasks.yaml`."""

    kind: str
    folders: Mapping[str, str]
    splits: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[Any] | None = None
    shared_ids: bool = False
    description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


def _read_sets() -> tuple[dict[str, LocalSet], dict[str, LocalSet]]:
    """MTEB's tasks and ours in `local_tasks.yaml`."""
    text = resources.files("selfpos.evaluation").joinpath("local_tasks.yaml").read_text(encoding="utf-8")
    groups: list[dict[str, LocalSet]] = []
    for tasks in yaml.safe_load(text).values():
        groups.append({})
        for name, fields in tasks.items():
            folders = fields.pop("folders")
            subsets = {"default": folders} if isinstance(folders, str) else folders
            groups[-1][name] = LocalSet(folders=subsets, **fields)
    mteb, own = groups
    return mteb, own


MTEB_TASKS, OWN_TASKS = _read_sets()


def own_task(name: str, load: Callable[[], Mapping[str, Any]], revision: str) -> AbsTask:
    """Our task `name`, with data from `load`."""
    local = OWN_TASKS[name]
    source = f"selfpos/{local.folders['default']}"
    return new_task(
        local.kind, name, local.description, load, revision=revision, source=source, **local.attributes
    )


class LocalFiles:
    """The files below `data_dir` for MTEB's `task`, or, without one, for the task of ours called `name`."""

    def __init__(self, name: str, data_dir: Path, task: AbsTask | None = None) -> None:
        self.name, self.task, self.data_dir = name, task, data_dir
        self.local = OWN_TASKS[name] if task is None else MTEB_TASKS[name]
        splits = ["test"] if task is None else task.eval_splits
        self.splits = {split: self.local.splits.get(split, split) for split in splits}
        self.folders = {
            subset: folder
            for subset, folder in self.local.folders.items()
            if task is None or subset == "default" or subset in task.hf_subsets
        }

    def missing(self) -> list[str]:
        """The files that `data_dir` lacks, as paths below it."""
        return [f"{folder}/{name}" for folder, name, file in self._files() if file is None]

    def load_task(self) -> AbsTask:
        """The task; its data is read when it is first run.

        The data revision is a hash of the files: scores on them are never mistaken for scores on the Hub's
        data, or on files that have changed since.
        """
        from selfpos.storage.hashing import sha256_file

        hashes = "".join(sha256_file(file) for _, _, file in self._files() if file)
        prefix = "local-ids-" if self.local.shared_ids else "local-"
        revision = prefix + hashlib.sha256(hashes.encode()).hexdigest()[:16]
        if self.task is None:
            return own_task(self.name, self._load, revision)
        dataset = {**self.task.metadata.dataset, "revision": revision}
        metadata = self.task.metadata.model_copy(update={"dataset": dataset})
        task = with_data(type(self.task), metadata, self._load)
        set_splits(task, list(self.splits), list(self.folders))
        return task

    def _files(self) -> Iterable[tuple[str, str, Path | None]]:
        """Folder, name and path of each file; the path is None for a file that does not exist."""
        for folder in self.folders.values():
            if self.local.kind == "retrieval":
                for split in self.splits.values():
                    for name, file in files.beir_files(self.data_dir / folder, split).items():
                        yield folder, name, file
                continue
            train = ["train"] if self.local.kind == "classification" else []
            for name in dict.fromkeys([*train, *self.splits.values()]):
                yield folder, f"{name}.jsonl[.gz]", files.find(self.data_dir / folder, name, LINES)

    def _load(self) -> Mapping[str, Any]:
        data = {subset: self._load_subset(self.data_dir / path) for subset, path in self.folders.items()}
        # MTEB keeps retrieval data by subset always, other data only if there are several.
        by_subset = self.local.kind in ("retrieval", "reranking") or list(data) != ["default"]
        return data if by_subset else data["default"]

    def _load_subset(self, folder: Path) -> Any:
        from datasets import DatasetDict

        if self.local.kind == "retrieval":
            return {split: self._load_retrieval(folder, ours) for split, ours in self.splits.items()}
        splits = {"train": "train", **self.splits} if self.local.kind == "classification" else self.splits
        rows = {}
        for split, ours in splits.items():
            path = files.find(folder, ours, LINES) or folder / f"{ours}.jsonl"
            rows[split] = files.read_records(path)
        if self.local.kind == "reranking":
            return {split: reranking_pools(records) for split, records in rows.items()}
        return DatasetDict(tables(self.local.kind, rows, self.local.labels))

    def _load_retrieval(self, folder: Path, split: str) -> dict[str, Any]:
        documents, queries, relevant = files.read_beir(folder, split)
        if self.local.shared_ids:
            names = {key: key.replace(f"-{split}-", "-") for key in relevant}
            queries = {names[key]: queries[key] for key in queries if key in relevant}
            relevant = {names[key]: grades for key, grades in relevant.items()}
        return retrieval_data(documents, queries, relevant)


def tables(
    kind: str, rows: Mapping[str, list[dict[str, Any]]], labels: Sequence[Any] | None = None
) -> dict[str, Any]:
    """Split → data set with the columns of MTEB's abstract task; class labels become numbers, by default
    sorted.
    """
    from datasets import Dataset

    columns = {
        "sts": {"sentence1": "sentence1", "sentence2": "sentence2", "score": "score"},
        "pair-classification": {"sentence1": "sentence1", "sentence2": "sentence2", "labels": "label"},
        "clustering": {"sentences": "text", "labels": "label"},
        "classification": {"text": "text", "label": "label"},
    }[kind]
    if kind == "classification":
        classes = labels or sorted({record["label"] for records in rows.values() for record in records})
        numbers = {label: number for number, label in enumerate(classes)}
        rows = {
            split: [{**record, "label": numbers[record["label"]]} for record in records]
            for split, records in rows.items()
        }
    made = {}
    for split, records in rows.items():
        made[split] = Dataset.from_dict(
            {theirs: [record[ours] for record in records] for theirs, ours in columns.items()}
        )
    return made


def reranking_pools(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Reranking data: each question ranks its own candidates.

    Questions without a wrong answer are left out.
    """
    documents: dict[str, dict[str, str]] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for row in rows:
        if not row["negative"]:
            continue
        key = str(row["query_id"])
        queries[key], relevant[key] = row["query"], {}
        graded = [(text, 1) for text in row["positive"]] + [(text, 0) for text in row["negative"]]
        for number, (text, grade) in enumerate(graded):
            relevant[key][f"{key}-{number}"] = grade
            documents[f"{key}-{number}"] = {"text": text}
    pools = {key: list(grades) for key, grades in relevant.items()}
    return retrieval_data(documents, queries, relevant, pools=pools)


def hub_folder(task: AbsTask, data_dir: Path) -> Path | None:
    """The folder below `data_dir` with the data repository of `task` in the Hub's layout; None if it has no
    data.
    """
    folder = data_dir / str(task.metadata.dataset["path"])
    return folder if folder.is_dir() and any(_hub_files(folder)) else None


def hub_task(task: AbsTask, folder: Path) -> AbsTask:
    """`task` reading its data from `folder`, as mteb does from the Hub.

    The data revision is a hash of the files.
    """
    from selfpos.storage.hashing import sha256_file

    lines = [
        f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n" for file in sorted(_hub_files(folder))
    ]
    revision = "local-" + hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
    dataset = {**task.metadata.dataset, "path": str(folder.absolute()), "revision": revision}
    metadata = task.metadata.model_copy(update={"dataset": dataset})
    local: AbsTask = type(type(task).__name__, (type(task),), {"metadata": metadata})()
    set_splits(local, task.eval_splits, task.hf_subsets)
    return local


def _hub_files(folder: Path) -> Iterable[Path]:
    """Data files and the card, which maps them to subsets and splits; hidden folders are skipped."""
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden and (file.name == "README.md" or file.name.endswith(HUB_FILES)):
            yield file


def fetch(tasks: Iterable[AbsTask], out: Path, say: Callable[[str], object] = print) -> None:
    """Download the data sets of `tasks` from the Hub to `out`, for `data_dir`. Files that exist are kept.

    Raises OperationError after the last data set when any failed.
    """
    from huggingface_hub import snapshot_download

    failed = []
    for task in tasks:
        path, revision = str(task.metadata.dataset["path"]), task.metadata.dataset.get("revision")
        try:
            snapshot_download(path, repo_type="dataset", revision=revision, local_dir=out / path)
            say(f"{task.metadata.name}: {out / path}")
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            failed.append(f"{task.metadata.name} ({path}: {lines[0] if lines else type(error).__name__})")
    if failed:
        raise OperationError(
            f"the data of {len(failed)} tasks could not be fetched: {'; '.join(failed)}; "
            "run the same command again to fetch what is missing"
        )
