"""MTEB data kept locally as it lies on the Hub: `FOLDER/owner/name/` with the files of the data set repository."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.errors import OperationError

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

DATA = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".arrow")


def repository_folder(task: AbsTask, data_dir: Path) -> Path | None:
    """The folder below `data_dir` with the repository that `task` reads, None where it has no data files."""
    folder = data_dir / str(task.metadata.dataset["path"])
    return folder if folder.is_dir() and any(_data_files(folder)) else None


def served(task: AbsTask, folder: Path) -> AbsTask:
    """`task` reading its data from `folder`, as mteb itself does from the Hub. The data revision is a hash of the files."""
    from selfpos.storage.hashing import sha256_file

    listed = "".join(
        f"{file.relative_to(folder).as_posix()}\0{sha256_file(file)}\n"
        for file in sorted(_data_files(folder))
    )
    revision = "local-" + hashlib.sha256(listed.encode()).hexdigest()[:16]
    place = {**task.metadata.dataset, "path": str(folder.absolute()), "revision": revision}
    metadata = task.metadata.model_copy(update={"dataset": place})
    made: AbsTask = type(type(task).__name__, (type(task),), {"metadata": metadata})()
    made._eval_splits = list(task.eval_splits)
    made.hf_subsets = task.hf_subsets
    return made


def fetch(tasks: Iterable[AbsTask], out: Path, say: Callable[[str], object] = print) -> None:
    """Fetch the data sets of `tasks` from the Hub to `out`, where `data_dir` finds them. What is there already is not fetched again.

    Raises OperationError after the last when any could not be fetched; fetching again goes on with what is missing.
    """
    from huggingface_hub import snapshot_download

    failed = {}
    for task in tasks:
        path, revision = str(task.metadata.dataset["path"]), task.metadata.dataset.get("revision")
        try:
            snapshot_download(path, repo_type="dataset", revision=revision, local_dir=out / path)
            say(f"{task.metadata.name}: {out / path}")
        except Exception as error:
            reason = next(
                (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
            )
            failed[task.metadata.name] = f"{path}: {reason}"
    if failed:
        told = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
        raise OperationError(
            f"the data of {len(failed)} tasks could not be fetched: {told}; the same command goes on with what is missing"
        )


def _data_files(folder: Path) -> Iterable[Path]:
    """Data files, and the card, which says which belong to which subset and split; without hidden folders."""
    for file in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden and (file.name == "README.md" or file.name.endswith(DATA)):
            yield file
