"""Data sets whose columns are lists: a `datasets.Column` decodes its rows again each time it is read.

mteb reads the labels of a classification task about three hundred times: without this file, such a task takes
1.4 times the CPU time with all-MiniLM-L6-v2, and 4 to 16 times with cached embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from datasets import Dataset, DatasetDict
from datasets.table import InMemoryTable
from mteb.abstasks import AbsTask, AbsTaskRetrieval


@contextmanager
def columns_as_lists(task: AbsTask) -> Iterator[None]:
    """While the block runs, `task` loads lists as columns; not retrieval, whose corpora are large."""
    if isinstance(task, AbsTaskRetrieval) or list(task.metadata.modalities) != ["text"]:
        yield
        return

    def load_data(*arguments: Any, **options: Any) -> None:
        type(task).load_data(task, *arguments, **options)
        task.dataset = listed(task.dataset)

    task.load_data = load_data  # type: ignore[method-assign]
    try:
        yield
    finally:
        del task.load_data


def listed(data: Any) -> Any:
    """`data`, a data set or a dictionary of data sets at any depth, with lists as columns."""
    if isinstance(data, Dataset):
        table = data.with_format("arrow")[:]
        return ListedDataset(InMemoryTable(table), info=data.info, split=data.split)
    if isinstance(data, dict):
        kind = DatasetDict if isinstance(data, DatasetDict) else dict
        return kind({name: listed(part) for name, part in data.items()})
    return data


class _Columns(dict[str, list[Any]]):
    """Columns read so far. Copies of a data set are made to change its columns, so a copy starts empty."""

    def __deepcopy__(self, memo: object) -> _Columns:
        return _Columns()


class ListedDataset(Dataset):
    """A data set whose columns are lists, read on first use."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._columns = _Columns()

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._columns:
            self._columns[key] = list(super().__getitem__(key)[:])
        return self._columns[key]

    def select(self, *arguments: Any, **options: Any) -> Dataset:
        made: Dataset = listed(super().select(*arguments, **options))
        return made
