"""Where training records come from: the embedded corpus, local files and folders, data sets on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from selfpos.data import files, streams
from selfpos.errors import OperationError, SelfposError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.recipe import TaskSource
    from selfpos.tasks import TaskType


@dataclass(frozen=True)
class LoadedSource:
    """Records with a task type's canonical columns, and where they come from.

    `description` says what they are, in words; `found` how many records there were; `dropped` how many were left out, and why; `revisions`
    the commit of each data set of the Hub; `hash` is the SHA-256 (hex) of the records.
    """

    dataset: Dataset
    description: str
    found: int
    dropped: Mapping[str, int]
    revisions: Mapping[str, str]
    hash: str


def load_task(
    source: TaskSource, *, seed: int, data_root: Path | None = None, split: str | None = None
) -> LoadedSource:
    """The records of a recipe's task, of its split or of another; from its `local` data when there is a `data_root` to find that in."""
    from selfpos.tasks import get_task

    local = source.local_copy if data_root is not None else None
    source = local or source
    return load_source(
        source.data,
        get_task(source.type),
        split=split or source.split,
        columns=source.columns,
        data_root=data_root if local else None,
        limit=source.limit,
        seed=seed,
        weights=source.weights,
        streaming=source.streaming,
        duplicates=source.duplicates,
    )


def load_source(
    spec: str | list[str],
    task_type: TaskType,
    *,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    data_root: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    weights: Sequence[float] | None = None,
    streaming: bool = False,
    duplicates: str = "keep",
) -> LoadedSource:
    """The records that `spec` (or several of them, one after the other) names, with the canonical columns of `task_type`.

    `spec` is `corpus`; a local file (JSON Lines, also gzipped, JSON, CSV, TSV, Parquet); a local folder with `<split>` in such a file, or in the BEIR
    layout; or `hub:NAME[:CONFIG][@REVISION]`. Local paths are taken below `data_root` when that is given. `columns` maps canonical names to the
    data's own. Records without a value or with an empty text are dropped and counted, and with `duplicates` "drop" those that occur before.
    `weights` are the shares of several specs: as many records are drawn as can be without repeating any. `limit` records are drawn with `seed`,
    in their order.

    With `streaming` local files and Hub sets are read record by record, into a file in the `datasets` cache that is mapped into memory, so
    that neither the memory nor, with `limit`, the disk need hold the whole: of each spec only its first `limit` usable records are read
    then, of a Hub set after a shuffle within a window of 10,000. Probe sets, hard negatives and all batches work as ever, since the records
    stand on disk; what cannot be had is a random sample of what was not read, so order the data at random, or leave `limit` away. Lists of
    texts (reranking, several positives) and labels are still turned into records in memory.

    Raises SelfposError for a missing file, split or column and for data without usable records; OperationError when the Hub does not answer.
    """
    from datasets import concatenate_datasets

    specs = [spec] if isinstance(spec, str) else list(spec)
    if not specs:
        raise SelfposError(f"no data is named for task type {task_type.name}")
    parts, dropped, revisions, there = [], Counter[str](), dict[str, str](), 0
    seen: set[int] | None = set() if duplicates == "drop" else None
    window = streams.Window(limit, seed) if streaming else None
    for one in specs:
        try:
            read = _read(one, task_type.name, split, data_root, window, revisions)
            part, gone = _complete(read, task_type, columns or {})
            there += len(read)
            canonical = task_type.canonical(part, columns)
            dropped["type"] += max(0, len(part) - len(canonical))
            parts.append(_usable(canonical, task_type, seen, dropped))
        except SelfposError as error:
            raise type(error)(f"data '{one}': {error}") from None
        dropped["missing value"] += gone
        if len(parts[-1]) == 0:
            raise SelfposError(f"data '{one}' has no usable records: {_reasons(dropped)}")
    if weights is not None:
        parts = _weighted(parts, weights, seed)
    shared = [name for name in parts[0].column_names if all(name in part.column_names for part in parts)]
    dataset = (
        concatenate_datasets([part.select_columns(shared) for part in parts]) if len(parts) > 1 else parts[0]
    )
    found = len(dataset)
    if limit is not None and limit < found:
        dataset = dataset.select(sorted(random.Random(seed).sample(range(found), limit)))
    drawn = f"{len(dataset)} of {found}" if len(dataset) < found else str(found)
    description = f"{' + '.join(_describe(one, task_type.name) for one in specs)}: {drawn} records"
    if reasons := _reasons(dropped):
        description += f" (dropped: {reasons})"
    counts = {reason: count for reason, count in dropped.items() if count}
    return LoadedSource(dataset, description, there, counts, revisions, hash_records(dataset))


def _weighted(parts: list[Dataset], weights: Sequence[float], seed: int) -> list[Dataset]:
    """Of each part a share of the whole, drawn with `seed`, in its order: the one that is scarcest for its weight is taken entirely."""
    unit = min(len(part) / weight for part, weight in zip(parts, weights, strict=True))
    drawn = []
    for number, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        count = max(1, round(unit * weight))
        drawn.append(part.select(sorted(random.Random(f"{seed} {number}").sample(range(len(part)), count))))
    return drawn


def hash_records(dataset: Dataset) -> str:
    """SHA-256 (hex) over the records in their order, columns by name."""
    digest = hashlib.sha256()
    for record in dataset:
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _describe(spec: str, task: str) -> str:
    return (
        f"{task} records from the docstrings of the Python packages on this machine"
        if spec == "corpus"
        else spec
    )


def _reasons(dropped: Mapping[str, int]) -> str:
    words = {"duplicate": "that occur before", "type": "that the task type leaves out or gathers with others"}
    return ", ".join(
        f"{count} {words.get(reason, f'with a {reason}')}" for reason, count in dropped.items() if count
    )


def _read(
    spec: str,
    task: str,
    split: str,
    data_root: Path | None,
    window: streams.Window | None,
    revisions: dict[str, str],
) -> Dataset:
    if spec == "corpus":
        from selfpos.data.corpus import load_corpus

        return load_corpus().training(task, split=split)
    if spec.startswith("hub:"):
        return _read_hub(spec.removeprefix("hub:"), task, split, window, revisions)
    path = data_root / spec if data_root is not None else Path(spec).expanduser()
    if path.is_dir():
        return _read_folder(path, task, split, window)
    if path.is_file():
        return _read_file(path, window)
    raise SelfposError(
        f"there is no file or folder {path}; give 'corpus', a local file or folder, or 'hub:NAME'{nearest(spec, ['corpus'])}"
    )


def _read_file(file: Path, window: streams.Window | None) -> Dataset:
    return (
        streams.spill_file(file, window) if window is not None else _dataset(files.read_records(file), file)
    )


def _read_folder(folder: Path, task: str, split: str, window: streams.Window | None) -> Dataset:
    file = files.find(folder, split)
    if file is not None:
        return _read_file(file, window)
    if (folder / "qrels").is_dir():
        return _dataset(_beir_records(*files.read_beir(folder, split), task), folder)
    there = sorted(
        {path.name.split(".")[0] for path in folder.iterdir() if path.name.endswith(files.ENDINGS)}
    )
    raise SelfposError(f"folder {folder} has no split '{split}'; found {', '.join(there) or 'no data files'}")


def _beir_records(
    documents: Mapping[str, dict[str, str]],
    queries: Mapping[str, str],
    relevant: Mapping[str, Mapping[str, int]],
    task: str,
) -> list[dict[str, Any]]:
    """For reranking one record per query with both relevant and irrelevant judgements; else one per relevant pair of query and document."""
    records: list[dict[str, Any]] = []
    for query, grades in relevant.items():
        texts = {
            wanted: [
                files.document_text(documents[key]) for key, grade in grades.items() if (grade > 0) is wanted
            ]
            for wanted in (True, False)
        }
        if task == "reranking":
            if texts[True] and texts[False]:
                records.append({"query": queries[query], "positive": texts[True], "negative": texts[False]})
        else:
            records += [{"anchor": queries[query], "positive": text} for text in texts[True]]
    return records


def _read_hub(
    place: str, task: str, split: str, window: streams.Window | None, revisions: dict[str, str]
) -> Dataset:
    """A data set on the Hub; one in the BEIR layout (configurations corpus and queries) is joined to pairs. Notes its commit in `revisions`."""
    import datasets

    name, _, asked = place.partition("@")
    name, _, config = name.partition(":")
    if not name:
        raise SelfposError("it names no data set; expected 'hub:NAME[:CONFIG][@REVISION]'")
    commit = _commit(name, asked or None)
    revision = commit or asked or None
    if revision:
        revisions[name] = revision

    def load(config: str | None, split: str) -> Dataset:
        return datasets.load_dataset(name, config, split=split, revision=revision)

    try:
        if not config and {"corpus", "queries"} <= set(
            datasets.get_dataset_config_names(name, revision=revision)
        ):
            documents = {str(row["_id"]): row for row in load("corpus", "corpus")}
            queries = {str(row["_id"]): row["text"] for row in load("queries", "queries")}
            relevant: dict[str, dict[str, int]] = {}
            for row in load("default", split):
                relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
            return _dataset(_beir_records(documents, queries, relevant, task), name)
        if window is not None:
            return streams.spill_hub(name, config or None, split, revision, window)
        return load(config or None, split)
    except (
        OSError,
        ValueError,
        KeyError,
    ) as error:  # the Hub's and datasets' own errors are OSErrors or ValueErrors
        reason = " ".join(str(error).split())
        raise OperationError(
            f"the Hugging Face Hub did not supply data set {name}, split '{split}': {reason}"
        ) from None


def _commit(name: str, revision: str | None) -> str | None:
    """The commit that `revision` of the data set `name` (its newest when None) stands for now; None where the Hub does not answer, as
    offline, when a copy in the cache may still serve."""
    from huggingface_hub import dataset_info

    try:
        return dataset_info(name, revision=revision).sha
    except (OSError, ValueError):
        return None


def _dataset(records: list[dict[str, Any]], where: Path | str) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    names = list(dict.fromkeys(name for record in records for name in record))
    try:
        return Dataset.from_dict({name: [record.get(name) for record in records] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SelfposError(
            f"{where}: a field holds values of different kinds ({' '.join(str(error).split())})"
        ) from None


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


def _usable(dataset: Dataset, task_type: TaskType, seen: set[int] | None, dropped: Counter[str]) -> Dataset:
    """The records none of whose texts is blank (and whose lists of texts hold something), but for those that may be; with `seen`, which it
    adds to, only such as do not occur there."""

    def says_something(value: Any) -> bool:
        return (
            bool(value.strip())
            if isinstance(value, str)
            else not isinstance(value, list) or (bool(value) and all(map(says_something, value)))
        )

    kept = []
    for row, record in enumerate(dataset):
        if not all(
            says_something(value) for name, value in record.items() if name not in task_type.may_be_blank
        ):
            dropped["blank text"] += 1
            continue
        if seen is not None:
            mark = xxhash.xxh3_128_intdigest(json.dumps(record, sort_keys=True, default=str).encode())
            if mark in seen:
                dropped["duplicate"] += 1
                continue
            seen.add(mark)
        kept.append(row)
    return dataset.select(kept) if len(kept) < len(dataset) else dataset
