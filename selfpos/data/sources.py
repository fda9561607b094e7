"""Where training records come from: the embedded corpus, local files and folders, data sets on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data import files
from selfpos.errors import OperationError, SelfposError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks import TaskType


@dataclass(frozen=True)
class LoadedSource:
    """Records with a task type's canonical columns; what they are, in words; how many were dropped and why; SHA-256 (hex) of the records."""

    dataset: Dataset
    description: str
    dropped: Mapping[str, int]
    hash: str


def load_source(
    spec: str | list[str],
    task_type: TaskType,
    *,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    data_root: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> LoadedSource:
    """The records that `spec` (or several of them, one after the other) names, with the canonical columns of `task_type`.

    `spec` is `corpus`; a local file (JSON Lines, also gzipped, JSON, CSV, TSV, Parquet); a local folder with `<split>` in such a file, or in the BEIR
    layout; or `hub:NAME[:CONFIG][@REVISION]`. Local paths are taken below `data_root` when that is given. `columns` maps canonical names to the
    data's own. `limit` records are drawn with `seed`, in their order. Records without a value or with an empty text are dropped and counted.
    Raises SelfposError for a missing file, split or column and for data without usable records; OperationError when the Hub does not answer.
    """
    from datasets import concatenate_datasets

    specs = [spec] if isinstance(spec, str) else list(spec)
    if not specs:
        raise SelfposError(f"no data is named for task type {task_type.name}")
    parts, dropped = [], Counter[str]()
    for one in specs:
        try:
            part, gone = _complete(_read(one, task_type.name, split, data_root), task_type, columns or {})
            parts.append(_without_empty(task_type.canonical(part, columns), task_type, dropped))
        except SelfposError as error:
            raise type(error)(f"data '{one}': {error}") from None
        dropped["missing value"] += gone
        if len(parts[-1]) == 0:
            raise SelfposError(f"data '{one}' has no usable records: {_reasons(dropped)}")
    shared = [name for name in parts[0].column_names if all(name in part.column_names for part in parts)]
    dataset = concatenate_datasets([part.select_columns(shared) for part in parts]) if len(parts) > 1 else parts[0]
    found = len(dataset)
    if limit is not None and limit < found:
        dataset = dataset.select(sorted(random.Random(seed).sample(range(found), limit)))
    drawn = f"{len(dataset)} of {found}" if len(dataset) < found else str(found)
    description = f"{' + '.join(_describe(one, task_type.name) for one in specs)}: {drawn} records"
    if reasons := _reasons(dropped):
        description += f" (dropped: {reasons})"
    return LoadedSource(dataset, description, {reason: count for reason, count in dropped.items() if count}, hash_records(dataset))


def hash_records(dataset: Dataset) -> str:
    """SHA-256 (hex) over the records in their order, columns by name."""
    digest = hashlib.sha256()
    for record in dataset:
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _describe(spec: str, task: str) -> str:
    return f"{task} records from the docstrings of the Python packages on this machine" if spec == "corpus" else spec


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} with a {reason}" for reason, count in dropped.items() if count)


def _read(spec: str, task: str, split: str, data_root: Path | None) -> Dataset:
    if spec == "corpus":
        from selfpos.data.corpus import load_corpus

        return load_corpus().training(task, split=split)
    if spec.startswith("hub:"):
        return _read_hub(spec.removeprefix("hub:"), task, split)
    path = data_root / spec if data_root is not None else Path(spec).expanduser()
    if path.is_dir():
        return _read_folder(path, task, split)
    if path.is_file():
        return _dataset(files.read_records(path), path)
    raise SelfposError(
        f"there is no file or folder {path}; give 'corpus', a local file or folder, or 'hub:NAME'{nearest(spec, ['corpus'])}"
    )


def _read_folder(folder: Path, task: str, split: str) -> Dataset:
    file = files.find(folder, split)
    if file is not None:
        return _dataset(files.read_records(file), file)
    if (folder / "qrels").is_dir():
        return _dataset(_beir_records(*files.read_beir(folder, split), task), folder)
    there = sorted({path.name.split(".")[0] for path in folder.iterdir() if path.name.endswith(files.ENDINGS)})
    raise SelfposError(f"folder {folder} has no split '{split}'; found {', '.join(there) or 'no data files'}")


def _beir_records(
    documents: Mapping[str, dict[str, str]], queries: Mapping[str, str], relevant: Mapping[str, Mapping[str, int]], task: str
) -> list[dict[str, Any]]:
    """For reranking one record per query with both relevant and irrelevant judgements; else one per relevant pair of query and document."""
    records: list[dict[str, Any]] = []
    for query, grades in relevant.items():
        texts = {
            wanted: [files.document_text(documents[key]) for key, grade in grades.items() if (grade > 0) is wanted]
            for wanted in (True, False)
        }
        if task == "reranking":
            if texts[True] and texts[False]:
                records.append({"query": queries[query], "positive": texts[True], "negative": texts[False]})
        else:
            records += [{"anchor": queries[query], "positive": text} for text in texts[True]]
    return records


def _read_hub(place: str, task: str, split: str) -> Dataset:
    """A data set on the Hub; one in the BEIR layout (configurations corpus and queries) is joined to pairs."""
    import datasets

    name, _, revision = place.partition("@")
    name, _, config = name.partition(":")

    def load(config: str | None, split: str) -> Dataset:
        return datasets.load_dataset(name, config, split=split, revision=revision or None)

    try:
        if not config and {"corpus", "queries"} <= set(datasets.get_dataset_config_names(name, revision=revision or None)):
            documents = {str(row["_id"]): row for row in load("corpus", "corpus")}
            queries = {str(row["_id"]): row["text"] for row in load("queries", "queries")}
            relevant: dict[str, dict[str, int]] = {}
            for row in load("default", split):
                relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
            return _dataset(_beir_records(documents, queries, relevant, task), name)
        return load(config or None, split)
    except (OSError, ValueError, KeyError) as error:  # the Hub's and datasets' own errors are OSErrors or ValueErrors
        reason = " ".join(str(error).split())
        raise OperationError(f"the Hugging Face Hub did not supply data set {name}, split '{split}': {reason}") from None


def _dataset(records: list[dict[str, Any]], where: Path | str) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    names = list(dict.fromkeys(name for record in records for name in record))
    try:
        return Dataset.from_dict({name: [record.get(name) for record in records] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SelfposError(f"{where}: a field holds values of different kinds ({' '.join(str(error).split())})") from None


def _complete(dataset: Dataset, task_type: TaskType, columns: Mapping[str, str]) -> tuple[Dataset, int]:
    """The records with a value in every column that `task_type` takes from them, and how many others there were."""
    taken = {
        columns.get(name) or next((known for known in accepted if known in dataset.column_names), None)
        for name, accepted in task_type.columns.items()
    }
    table = dataset.data.table if dataset._indices is None else dataset.flatten_indices().data.table
    holed = [name for name in taken if name in dataset.column_names and table[name].null_count]
    if not holed:
        return dataset, 0
    kept = [row for row in range(len(dataset)) if all(table[name][row].is_valid for name in holed)]
    return dataset.select(kept), len(dataset) - len(kept)


def _without_empty(dataset: Dataset, task_type: TaskType, dropped: Counter[str]) -> Dataset:
    """The records none of whose texts is blank (and whose lists of texts hold something), but for those that may be."""

    def says_something(value: Any) -> bool:
        return (
            bool(value.strip())
            if isinstance(value, str)
            else not isinstance(value, list) or (bool(value) and all(map(says_something, value)))
        )

    texts = dataset.select_columns([name for name in dataset.column_names if name not in task_type.may_be_blank])
    kept = [row for row, record in enumerate(texts) if all(map(says_something, record.values()))]
    dropped["blank text"] += len(dataset) - len(kept)
    return dataset.select(kept) if len(kept) < len(dataset) else dataset
