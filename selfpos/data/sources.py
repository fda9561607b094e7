"""Where training records come from: the embedded corpus, local files and folders, data sets on the Hugging
Face Hub.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from selfpos.data import files
from selfpos.errors import OperationError, SelfposError, nearest, on_one_line

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.recipe import TaskSource
    from selfpos.tasks import TaskType


@dataclass(frozen=True)
class LoadedSource:
    """Records with a task type's canonical columns, and where they come from.

    `description` says what they are, in words; `found` how many records there were; `dropped` how many were
    left out, and why; `revisions` the commit of each data set of the Hub; `hash` is the SHA-256 (hex) of the
    records.
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
    """The records of a recipe's task, of its split or of another; from its `local` data when there is a
    `data_root` to find that in.
    """
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
    """Read records with the canonical columns of `task_type`.

    Records without a value or with an empty text are dropped.

    With `streaming`, files and Hub sets are read record by record into a memory-mapped file in the cache of
    `datasets`. With a `limit`, only the first `limit` usable records of each are read then, so order the data
    at random or give no limit. A Hub set is first shuffled within 10,000 records.

    Args:
        spec: one data set or several: `corpus` or `corpus:VIEW`; a local file (JSON Lines, also gzipped,
            JSON, CSV, TSV, Parquet); a local folder with `<split>` in such a file, or in the BEIR layout; or
            `hub:NAME[:CONFIG][@REVISION]`.
        task_type: what a record holds.
        split: which split of a folder or of a Hub set.
        columns: canonical name → the name in the data.
        data_root: folder that local paths start from.
        limit: records to draw with `seed`, in their order.
        seed: of `limit` and `weights`.
        weights: shares of several data sets. As many records are drawn as possible without repeating any.
        streaming: read record by record.
        duplicates: "drop" leaves out records that occur before.

    Returns:
        The records, and where they come from.

    Raises:
        SelfposError: a file, split or column is missing, or there are no usable records.
        OperationError: the Hub does not answer.
    """
    from datasets import concatenate_datasets

    specs = [spec] if isinstance(spec, str) else list(spec)
    if not specs:
        raise SelfposError(f"no data is named for task type {task_type.name}")
    reader = _Reader(task_type, split, columns or {}, data_root, duplicates == "drop")
    if streaming:
        reader.window = files.Window(limit, seed)
    parts = []
    for name in specs:
        try:
            parts.append(reader.read(name))
        except SelfposError as error:
            raise type(error)(f"data '{name}': {error}") from None
        if len(parts[-1]) == 0:
            raise SelfposError(f"data '{name}' has no usable records: {_reasons(reader.dropped)}")
    if weights is not None:
        parts = _weighted(parts, weights, seed)
    shared = [name for name in parts[0].column_names if all(name in part.column_names for part in parts)]
    dataset = parts[0]
    if len(parts) > 1:
        dataset = concatenate_datasets([part.select_columns(shared) for part in parts])
    usable = len(dataset)
    if limit is not None and limit < usable:
        dataset = dataset.select(sorted(random.Random(seed).sample(range(usable), limit)))
    drawn = f"{len(dataset)} of {usable}" if len(dataset) < usable else str(usable)
    origin = " + ".join(_origin(name, task_type) for name in specs)
    description = f"{origin}: {drawn} records"
    if reasons := _reasons(reader.dropped):
        description += f" (dropped: {reasons})"
    dropped = {reason: count for reason, count in reader.dropped.items() if count}
    return LoadedSource(dataset, description, reader.found, dropped, reader.revisions, hash_records(dataset))


def corpus_view(spec: str) -> str | None:
    """VIEW of the source `corpus:VIEW`, empty for `corpus` alone; None for another source."""
    name, _, view = spec.partition(":")
    return view if name == "corpus" else None


def _origin(spec: str, task_type: TaskType) -> str:
    view = corpus_view(spec)
    if view is None:
        return spec
    records = f"{task_type.name} records{f' ({view})' if view else ''}"
    return f"{records} from the docstrings of the Python packages on this machine"


def _weighted(parts: list[Dataset], weights: Sequence[float], seed: int) -> list[Dataset]:
    """A share of each part, drawn with `seed`. The part that is scarcest for its weight is taken whole."""
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


def _reasons(dropped: Mapping[str, int]) -> str:
    words = {"duplicate": "that occur before", "type": "that the task type leaves out or groups with others"}
    counts = {words.get(reason, f"with a {reason}"): count for reason, count in dropped.items() if count}
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


@dataclass
class _Reader:
    """Reads data sets one after the other, and counts what it drops."""

    task_type: TaskType
    split: str
    columns: Mapping[str, str]
    data_root: Path | None
    drop_duplicates: bool
    window: files.Window | None = None
    found: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    revisions: dict[str, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def read(self, spec: str) -> Dataset:
        """The usable records of `spec`, with the canonical columns of the task type."""
        dataset = self._open(spec)
        self.found += len(dataset)
        complete = self._complete(dataset)
        canonical = self.task_type.canonical(complete, self.columns)
        self.dropped["type"] += max(0, len(complete) - len(canonical))
        usable = self._usable(canonical)
        self.dropped["missing value"] += len(dataset) - len(complete)
        return usable

    def _open(self, spec: str) -> Dataset:
        view = corpus_view(spec)
        if view is not None:
            from selfpos.data.corpus import load_corpus

            return load_corpus().training(self.task_type.name, view or None, split=self.split)
        if spec.startswith("hub:"):
            return self._read_hub(spec.removeprefix("hub:"))
        path = self.data_root / spec if self.data_root is not None else Path(spec).expanduser()
        if path.is_dir():
            return self._read_folder(path)
        if path.is_file():
            return self._read_file(path)
        raise SelfposError(
            f"there is no file or folder {path}; give 'corpus', a local file or folder, or 'hub:NAME'"
            f"{nearest(spec, ['corpus'])}"
        )

    def _read_file(self, file: Path) -> Dataset:
        if self.window is not None:
            return files.spill_file(file, self.window)
        return _dataset(files.read_records(file), file)

    def _read_folder(self, folder: Path) -> Dataset:
        file = files.find(folder, self.split)
        if file is not None:
            return self._read_file(file)
        if (folder / "qrels").is_dir():
            return _dataset(self._beir_records(*files.read_beir(folder, self.split)), folder)
        names = {path.name.split(".")[0] for path in folder.iterdir() if path.name.endswith(files.ENDINGS)}
        splits = ", ".join(sorted(names)) or "no data files"
        raise SelfposError(f"folder {folder} has no split '{self.split}'; found {splits}")

    def _beir_records(
        self,
        documents: Mapping[str, dict[str, str]],
        queries: Mapping[str, str],
        relevant: Mapping[str, Mapping[str, int]],
    ) -> list[dict[str, Any]]:
        """One record per relevant pair; for reranking one per query, with relevant and other documents."""
        records: list[dict[str, Any]] = []
        for query, grades in relevant.items():
            positive = [files.document_text(documents[key]) for key, grade in grades.items() if grade > 0]
            negative = [files.document_text(documents[key]) for key, grade in grades.items() if grade <= 0]
            if self.task_type.name != "reranking":
                records += [{"anchor": queries[query], "positive": text} for text in positive]
            elif positive and negative:
                records.append({"query": queries[query], "positive": positive, "negative": negative})
        return records

    def _read_hub(self, address: str) -> Dataset:
        """A data set on the Hub. The BEIR layout (configurations corpus and queries) is joined to pairs."""
        import datasets

        name, _, revision = address.partition("@")
        name, _, config = name.partition(":")
        if not name:
            raise SelfposError("it names no data set; expected 'hub:NAME[:CONFIG][@REVISION]'")
        commit = _commit(name, revision or None) or revision or None
        if commit:
            self.revisions[name] = commit

        def load(config: str | None, split: str) -> Dataset:
            return datasets.load_dataset(name, config, split=split, revision=commit)

        try:
            if not config and {"corpus", "queries"} <= set(
                datasets.get_dataset_config_names(name, revision=commit)
            ):
                documents = {str(row["_id"]): row for row in load("corpus", "corpus")}
                queries = {str(row["_id"]): row["text"] for row in load("queries", "queries")}
                relevant: dict[str, dict[str, int]] = {}
                for row in load("default", self.split):
                    relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(row["score"])
                return _dataset(self._beir_records(documents, queries, relevant), name)
            if self.window is not None:
                return files.spill_hub(name, config or None, self.split, commit, self.window)
            return load(config or None, self.split)
        except (
            OSError,
            ValueError,
            KeyError,
        ) as error:  # errors of the Hub and of datasets derive from these
            reason = on_one_line(error)
            raise OperationError(
                f"the Hugging Face Hub did not supply data set {name}, split '{self.split}': {reason}"
            ) from None

    def _complete(self, dataset: Dataset) -> Dataset:
        """The records with a value in every column that the task type takes."""
        taken = set()
        for name, accepted in self.task_type.columns.items():
            known = (column for column in accepted if column in dataset.column_names)
            taken.add(self.columns.get(name) or next(known, None))
        present = [column for column in dataset.column_names if column in taken]
        table = dataset.select_columns(present).with_format("arrow")[:] if present else None
        holes = [column for column in present if table is not None and table[column].null_count]
        if table is None or not holes:
            return dataset
        rows = range(len(dataset))
        return dataset.select([row for row in rows if all(table[column][row].is_valid for column in holes)])

    def _usable(self, dataset: Dataset) -> Dataset:
        """The records without blank texts and empty lists, and without duplicates where those are dropped."""
        kept = []
        for row, record in enumerate(dataset):
            texts = (value for name, value in record.items() if name not in self.task_type.may_be_blank)
            if any(map(_is_blank, texts)):
                self.dropped["blank text"] += 1
                continue
            if self.drop_duplicates:
                digest = xxhash.xxh3_128_intdigest(json.dumps(record, sort_keys=True, default=str).encode())
                if digest in self.seen:
                    self.dropped["duplicate"] += 1
                    continue
                self.seen.add(digest)
            kept.append(row)
        return dataset.select(kept) if len(kept) < len(dataset) else dataset


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, list) and (not value or any(map(_is_blank, value)))


def _commit(name: str, revision: str | None) -> str | None:
    """The commit of `revision` of the data set `name` (the newest when None); None where the Hub does not
    answer.
    """
    from huggingface_hub import dataset_info

    try:
        return dataset_info(name, revision=revision).sha
    except (OSError, ValueError):
        return None


def _dataset(records: list[dict[str, Any]], source: Path | str) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    names = list(dict.fromkeys(name for record in records for name in record))
    try:
        return Dataset.from_dict({name: [record.get(name) for record in records] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SelfposError(
            f"{source}: a field holds values of different kinds ({on_one_line(error)})"
        ) from None
