"""Where training records come from: the embedded corpus, local files and folders, data sets on the Hugging
Face Hub.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from selfpos.data import beir, tables
from selfpos.data.card import label_names
from selfpos.data.folders import known_splits, names_of, saved_splits, split_files
from selfpos.data.hub import HubAddress, answers_of_hub, commit_of, hub_address
from selfpos.errors import SelfposError, nearest
from selfpos.tasks.forms import PASSAGE, passage_text

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
    source: TaskSource,
    *,
    seed: int,
    data_root: Path | None = None,
    split: str | None = None,
    task_type: TaskType | None = None,
) -> LoadedSource:
    """The records of a recipe's task, of its split or of another; from its `local` data when there is a
    `data_root` to find that in. `task_type` reads them where it is not the source's.
    """
    from selfpos.tasks import get_task

    local = source.local_copy if data_root is not None else None
    source = local or source
    if split is not None:
        _check_has_splits(source.data, split, data_root if local else None)
    return load_source(
        source.data,
        task_type or get_task(source.type),
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
        spec: one data set or several: `corpus` or `corpus:VIEW`; a local file (JSON Lines, JSON, CSV, TSV,
            Parquet, plain or compressed); a local folder with `<split>` in such files, in the layout of the
            Hub, of `save_to_disk` or of BEIR; or `hub:NAME[:CONFIG][@REVISION]`.
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
        reader.window = tables.Window(limit, seed)
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
    if lost := dict.fromkeys(name for part in parts for name in part.column_names if name not in shared):
        reader.remarks.append(f"not used, since not all of the data have it: {', '.join(lost)}")
    dataset = parts[0]
    if len(parts) > 1:
        dataset = concatenate_datasets(tables.aligned([part.select_columns(shared) for part in parts], specs))
    usable = len(dataset)
    if limit is not None and limit < usable:
        dataset = dataset.select(sorted(random.Random(seed).sample(range(usable), limit)))
    origin = " + ".join(_origin(name, task_type) for name in specs)
    description = f"{origin}: {reader.describe(len(dataset), usable)}"
    dropped = {reason: count for reason, count in reader.dropped.items() if count}
    return LoadedSource(dataset, description, reader.found, dropped, reader.revisions, hash_records(dataset))


def _check_has_splits(specs: str | list[str], split: str, data_root: Path | None) -> None:
    """Refuse data of one file, or saved as one set, of which another split would be the same records."""
    for spec in [specs] if isinstance(specs, str) else specs:
        path = _local_path(spec, data_root)
        if path.is_file() or (path / "state.json").is_file():
            raise SelfposError(
                f"data '{spec}' has no split '{split}', for it is all one; give a folder that has both "
                "splits, or let a share of the records be held out"
            )


def _local_path(spec: str, data_root: Path | None) -> Path:
    return data_root / spec if data_root is not None else Path(spec).expanduser()


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
    window: tables.Window | None = None
    found: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    revisions: dict[str, str] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    unused: dict[str, None] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def read(self, spec: str) -> Dataset:
        """The usable records of `spec`, with the canonical columns of the task type."""
        opened = self._open(spec)
        names, columns = self._renamed(opened.column_names)
        dataset = opened.rename_columns({name: new for name, new in names.items() if name != new})
        self.found += len(dataset)
        complete = self._complete(dataset, columns)
        if not len(complete):
            self.dropped["missing value"] += len(dataset)
            return complete
        canonical = self.task_type.canonical(complete, columns)
        self.dropped["type"] += max(0, len(complete) - len(canonical))
        usable = self._usable(canonical)
        self.dropped["missing value"] += len(dataset) - len(complete)
        return usable

    def describe(self, kept: int, usable: int) -> str:
        """How many records there are, and what was left out of what was read."""
        text = f"{kept} of {usable} records" if kept < usable else f"{usable} records"
        if reasons := _reasons(self.dropped):
            text += f" (dropped: {reasons})"
        remarks = [*dict.fromkeys(self.remarks)]
        if self.unused:
            remarks.append(f"columns not used: {', '.join(self.unused)}")
        return "; ".join([text, *remarks])

    def _choose(self, present: Sequence[str]) -> list[str]:
        """The columns to read of those that are there."""
        names, columns = self._renamed(present)
        used_names = self.task_type.uses([*names.values()], columns)
        used = [name for name in present if names[name] in used_names]
        self.unused |= dict.fromkeys(name for name in present if name not in used)
        return used

    def _renamed(self, present: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
        """The columns by the names that the task type knows, and those that the user named, by these."""
        names = self.task_type.renamed(present)
        return names, {name: names.get(source, source) for name, source in self.columns.items()}

    def _open(self, spec: str) -> Dataset:
        view = corpus_view(spec)
        if view is not None:
            from selfpos.data.corpus import load_corpus

            return load_corpus().training(self.task_type.name, view or None, split=self.split)
        address = hub_address(spec)
        if address is not None:
            return self._read_hub(address)
        path = _local_path(spec, self.data_root)
        if path.is_dir():
            return self._read_folder(path)
        if path.is_file():
            return tables.read([path], label_names(path.parent), self._choose, self.window)
        raise SelfposError(
            f"there is no file or folder {path}; give 'corpus', a local file or folder, or 'hub:NAME'"
            f"{nearest(spec, ['corpus'])}"
        )

    def _read_folder(self, folder: Path) -> Dataset:
        if saved := saved_splits(folder):
            name = next((name for name in [*names_of(self.split), ""] if name in saved), None)
            if name is None:
                raise _no_split(folder, self.split, saved)
            self._note_name(name or self.split)
            dataset = saved[name]
            return dataset.select_columns(self._choose(dataset.column_names))
        parts = beir.beir_files(folder, self.split)
        if all(parts.values()):
            return self._beir_records(beir.read_beir(folder, parts), folder)
        if of_split := split_files(folder, self.split):
            if of_split.languages:
                self.remarks.append(f"languages {', '.join(of_split.languages)}")
            self._note_name(of_split.name)
            return tables.read(of_split.files, label_names(folder), self._choose, self.window)
        if (folder / "qrels").is_dir():
            beir.read_beir(folder, parts)  # says what is missing
        raise _no_split(folder, self.split, known_splits(folder))

    def _note_name(self, split: str) -> None:
        if split != self.split:
            self.remarks.append(f"split '{self.split}' is called {split} there")

    def _beir_records(self, dataset: beir.Beir, where: Path | str) -> Dataset:
        """One record per relevant pair; for reranking one per query, with relevant and other documents."""
        if dataset.remark:
            self.remarks.append(dataset.remark)
        records: list[dict[str, Any]] = []
        for query, grades in dataset.relevant.items():
            texts = {key: passage_text(dataset.documents[key]) for key in grades}
            positive = [texts[key] for key, grade in grades.items() if grade > 0]
            negative = [texts[key] for key, grade in grades.items() if grade <= 0]
            if self.task_type.name != "reranking":
                records += [{"anchor": dataset.queries[query], "positive": text} for text in positive]
            elif positive and negative:
                records.append({"query": dataset.queries[query], "positive": positive, "negative": negative})
        if not records:
            raise SelfposError(f"{where} has no judgement above 0, which marks what is right")
        return tables.from_records(records, self._choose, where)

    def _read_hub(self, address: HubAddress) -> Dataset:
        """A data set on the Hub. The BEIR layout (configurations corpus and queries) is joined to pairs."""
        import datasets

        name, config, revision = address
        commit, connected = commit_of(name, revision)
        if commit:
            self.revisions[name] = commit
        with answers_of_hub(name, self.split, connected=connected):

            def load(config: str | None, split: str) -> Dataset:
                return datasets.load_dataset(name, config, split=split, revision=commit)

            if not config and {"corpus", "queries"} <= set(
                datasets.get_dataset_config_names(name, revision=commit)
            ):
                documents = beir.by_id(load("corpus", "corpus"), PASSAGE, f"{name}, corpus")
                queries = beir.by_id(load("queries", "queries"), beir.QUESTIONS, f"{name}, queries")
                judged = beir.judgements(beir.numbered(load("default", self.split)), name)
                return self._beir_records(beir.joined(documents, queries, judged, name), name)
            if self.window is not None:
                origin = (name, config, self.split, commit)
                return tables.spill_hub(*origin, self._choose, self.window)
            dataset = load(config, self.split)
            return dataset.select_columns(self._choose(dataset.column_names))

    def _complete(self, dataset: Dataset, columns: Mapping[str, str]) -> Dataset:
        """The records with a value in every column that the task type takes."""
        try:
            sources = self.task_type.find_columns(dataset.column_names, columns)
        except SelfposError:
            return dataset  # of another form, which `canonical` knows
        names = [source for name, source in sources.items() if name not in self.task_type.may_be_blank]
        table = dataset.with_format("arrow")[:]
        holes = [name for name in names if table[name].null_count]
        if not holes:
            return dataset
        rows = range(len(dataset))
        return dataset.select([row for row in rows if all(table[name][row].is_valid for name in holes)])

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


def _no_split(folder: Path, split: str, found: Iterable[str]) -> SelfposError:
    present = ", ".join(found) or "no data files"
    return SelfposError(
        f"folder {folder} has no split '{split}'; found {present}; name a split, or a file or folder in it"
    )


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, list) and (not value or any(map(_is_blank, value)))
