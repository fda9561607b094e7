"""MTEB tasks on local files; `local_tasks.yaml` says which folders and fields hold the data of which task.

Our layout is a folder of JSON Lines per task, one file per split (`test.jsonl` or `test.jsonl.gz`), retrieval
sets as of BEIR. The Hub's layout is `FOLDER/owner/name/` with the files of the data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from selfpos.data.beir import Beir, beir_files, of_pairs, read_beir
from selfpos.data.folders import split_files
from selfpos.data.sources import load_source
from selfpos.data.tables import READING
from selfpos.errors import OperationError, SelfposError, first_line
from selfpos.evaluation.mteb_internals import columns_of, set_splits
from selfpos.evaluation.tasks import dataset_of, fault_of_records, kind_of, new_task, with_data
from selfpos.storage.hashing import sha256_file
from selfpos.tasks import get_task
from selfpos.tasks.task import ANOTHER

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@dataclass(frozen=True)
class LocalSet:
    """How local files hold the data of one task; the fields are described in `local_tasks.yaml`."""

    kind: str
    folders: str | Mapping[str, str]
    splits: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[Any] | None = None
    shared_ids: bool = False
    description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subsets(self) -> Mapping[str, str]:
        return {"default": self.folders} if isinstance(self.folders, str) else self.folders


_SETS = yaml.safe_load(Path(__file__).with_name("local_tasks.yaml").read_text(encoding="utf-8"))
MTEB_TASKS = {name: LocalSet(**fields) for name, fields in _SETS["mteb"].items()}
OWN_TASKS = {name: LocalSet(**fields) for name, fields in _SETS["own"].items()}
EXAMPLES: dict[str, str] = _SETS["examples"]
CORPUS_TASKS = {name: LocalSet(**fields) for name, fields in _SETS["corpus"].items()}


def own_task(name: str, load: Callable[[], Mapping[str, Any]], revision: str) -> AbsTask:
    """Our task `name`, on local data or the corpus, with data from `load`."""
    local = OWN_TASKS.get(name) or CORPUS_TASKS[name]
    source = f"selfpos/{local.folders}"
    return new_task(
        local.kind, name, local.description, load, revision=revision, source=source, **local.attributes
    )


def set_in(folder: str, task: AbsTask) -> LocalSet | None:
    """How the folder `folder` would hold the data of MTEB's `task` in our layout; None for other types."""
    kind = kind_of(task)
    subsets = list(task.hf_subsets or ["default"])
    if not kind:
        return None
    many = len(subsets) > 1
    return LocalSet(kind, {subset: f"{folder}/{subset}" if many else folder for subset in subsets})


class LocalFiles:
    """The files below `data_dir` for MTEB's `task`, or, without one, for the task of ours called `name`."""

    def __init__(
        self, name: str, data_dir: Path, task: AbsTask | None = None, local: LocalSet | None = None
    ) -> None:
        self.name, self.task, self.data_dir = name, task, data_dir
        self.local = local or (OWN_TASKS[name] if task is None else MTEB_TASKS[name])
        self.transforms = local is None
        self.renamed = columns_of(task) if task is not None and local is not None else {}
        splits = ["test"] if task is None else task.eval_splits
        self.splits = {split: self.local.splits.get(split, split) for split in splits}
        self.folders = {
            subset: data_dir / folder
            for subset, folder in self.local.subsets.items()
            if task is None or subset == "default" or subset in task.hf_subsets
        }

    def missing(self) -> list[str]:
        """The files that the folder of data lacks, as paths below it."""
        return [f"{self._named(folder)}/{name}" for folder, name, file in self._files() if file is None]

    def subsets_there(self) -> list[str]:
        """The subsets of which no file is missing."""
        incomplete = {folder for folder, _, file in self._files() if file is None}
        return [subset for subset, folder in self.folders.items() if folder not in incomplete]

    @property
    def place(self) -> str:
        """The folders, in words."""
        return ", ".join(f"{self._named(folder)}/" for folder in self.folders.values())

    def _named(self, folder: Path) -> str:
        return folder.relative_to(self.data_dir).as_posix()

    def example(self) -> str:
        """A record of each file, as its line is written."""
        return EXAMPLES[self.local.kind]

    def load_task(self) -> AbsTask:
        """The task; its data is read when it is first run.

        The data revision is a hash of the files and of our rules of reading, never that of the Hub's data.
        """
        hashes = "".join(sha256_file(file) for _, _, file in self._files() if file)
        prefix = "local-ids-" if self.local.shared_ids else "local-"
        revision = prefix + hashlib.sha256(f"{hashes} {READING}".encode()).hexdigest()[:16]
        if self.task is None:
            return own_task(self.name, self._load, revision)
        dataset = {**self.task.metadata.dataset, "revision": revision}
        metadata = self.task.metadata.model_copy(update={"dataset": dataset})
        task = with_data(type(self.task), metadata, self._load, transforms=self.transforms)
        set_splits(task, list(self.splits), list(self.folders))
        return task

    def _all_splits(self) -> dict[str, str]:
        """MTEB's split → ours, with the training split where MTEB trains a classifier."""
        return {**({"train": "train"} if self.local.kind == "classification" else {}), **self.splits}

    def _files(self) -> Iterable[tuple[Path, str, Path | None]]:
        """Folder, name and path of each file; the path is None for a file that does not exist."""
        for folder in self.folders.values():
            for split in dict.fromkeys(self._all_splits().values()):
                if self.local.kind == "retrieval":
                    for name, files in beir_files(folder, split).items():
                        for part in (*files,) or (None,):
                            yield folder, name, part
                    continue
                existing = split_files(folder, split) if folder.is_dir() else None
                for file in existing.files if existing else [None]:
                    yield folder, f"{split}.jsonl[.gz]", file

    def _load(self) -> Mapping[str, Any]:
        data = {subset: self._load_subset(folder) for subset, folder in self.folders.items()}
        # MTEB keeps retrieval data by subset always, other data only if there are several.
        by_subset = self.local.kind in ("retrieval", "reranking") or list(data) != ["default"]
        return data if by_subset else data["default"]

    def _load_subset(self, folder: Path) -> Any:
        splits: dict[str, Any] = {}
        for split, ours in self._all_splits().items():
            if self.local.kind == "retrieval":
                splits[split] = self._read_retrieval(folder, ours)
            else:
                try:
                    splits[split], _ = read_split(self.local.kind, folder, ours)
                except SelfposError as error:  # columns of these files have no other names
                    raise type(error)(str(error).partition(ANOTHER)[0]) from None
        if fault := fault_of_records(self.local.kind, splits):
            raise SelfposError(f"{folder}: {fault}")
        return dataset_of(self.local.kind, splits, self.local.labels, self.renamed)

    def _read_retrieval(self, folder: Path, split: str) -> Beir:
        data, _ = read_split("retrieval", folder, split)
        if not self.local.shared_ids:
            return data
        names = {key: key.replace(f"-{split}-", "-") for key in data.relevant}
        return data._replace(
            queries={names[key]: text for key, text in data.queries.items() if key in names},
            relevant={names[key]: grades for key, grades in data.relevant.items()},
        )


def read_split(
    kind: str, source: Path, split: str, columns: Mapping[str, str] | None = None
) -> tuple[Any, str]:
    """The records in the file or folder `source`, and what was left out of them, in words.

    Retrieval is a BEIR folder, or a file of questions and answers.

    Raises SelfposError for records without text or value: a score over the others would be another task's.
    """
    if not source.exists():
        raise SelfposError(f"there is no data file {source}")
    if kind == "retrieval" and not source.is_file():
        data = read_beir(source, beir_files(source, split))
        if blank := sum(not data.queries[key].strip() for key in data.relevant):
            raise SelfposError(
                f"{source}: of {len(data.relevant)} queries {blank} with a blank text; fill them in, or "
                "remove their judgements"
            )
        return data, data.remark
    loaded = load_source(str(source), get_task(kind), split=split, columns=columns)
    dropped = {reason: count for reason, count in loaded.dropped.items() if reason != "type"}
    if dropped:
        counts = ", ".join(f"{count} with a {reason}" for reason, count in dropped.items())
        raise SelfposError(f"{source}: of {loaded.found} records {counts}; fill them in, or remove them")
    left_out = loaded.dropped.get("type", 0)
    why = "without a label left out"
    if kind == "reranking":
        why = "gathered with others of their question, or left out without a right and a wrong answer"
    if kind == "retrieval":
        return of_pairs(
            loaded.dataset
        ), f"{left_out} records without a right answer left out" if left_out else ""
    return loaded.dataset.to_list(), f"{left_out} records {why}" if left_out else ""


def hub_folder(task: AbsTask, data_dir: Path) -> Path | None:
    """The folder below `data_dir` with the data of `task` in the Hub's layout; None if it has none."""
    folder = data_dir / str(task.metadata.dataset["path"])
    return folder if any(file.name != "README.md" for file in data_files(folder)) else None


def hub_task(task: AbsTask, folder: Path) -> AbsTask:
    """`task` reading its data from `folder`, as mteb does from the Hub; its revision hashes the files."""
    files = sorted(data_files(folder))
    lines = [f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n" for file in files]
    revision = "local-" + hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
    dataset = {**task.metadata.dataset, "path": str(folder.absolute()), "revision": revision}
    metadata = task.metadata.model_copy(update={"dataset": dataset})

    def load_data(self: AbsTask, **options: Any) -> None:
        with datasets_cache(revision):
            type(task).load_data(self, **options)

    members = {"metadata": metadata, "load_data": load_data}
    local: AbsTask = type(type(task).__name__, (type(task),), members)()
    set_splits(local, task.eval_splits, task.hf_subsets)
    return local


@contextmanager
def datasets_cache(name: str) -> Iterator[None]:
    """A block in which `datasets` has a cache of its own: it takes two folders with equal READMEs for one."""
    from datasets import config

    before = config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = Path(before) / "selfpos" / name
    try:
        yield
    finally:
        config.HF_DATASETS_CACHE = before


def data_files(folder: Path) -> Iterable[Path]:
    """All files but hidden ones, of whatever kind, for any of them may hold data."""
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden:
            yield file


def fetch(tasks: Iterable[AbsTask], out: Path, say: Callable[[str], object] = print) -> None:
    """Download the data sets of `tasks` from the Hub to `out`, for `data_dir`. Files that exist are kept."""
    from huggingface_hub import snapshot_download

    failed = []
    for task in tasks:
        path, revision = str(task.metadata.dataset["path"]), task.metadata.dataset.get("revision")
        try:
            snapshot_download(path, repo_type="dataset", revision=revision, local_dir=out / path)
            say(f"{task.metadata.name}: {out / path}")
        except Exception as error:
            failed.append(f"{task.metadata.name} ({path}: {first_line(error)})")
    if failed:
        raise OperationError(
            f"the data of {len(failed)} tasks could not be fetched: {'; '.join(failed)}; "
            "run the same command again to fetch what is missing"
        )
