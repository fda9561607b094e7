"""Data sets whose columns are lists, for mteb to score on: a `datasets.Column` decodes its rows one by one, each time it is looked at.

mteb looks at the labels of a classification task some three hundred times (ten experiments, a dozen measures each), which takes longer than fitting
its classifiers. What it reads is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@contextmanager
def columns_as_lists(task: AbsTask) -> Iterator[None]:
    """While the block runs, `task` loads its data with lists for columns; not so the large corpora of retrieval, nor data that is not text."""
    from mteb.abstasks import AbsTaskRetrieval

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
    """`data`, a data set or a dictionary of data sets at any depth, with lists for columns; anything else is returned as it is."""
    if isinstance(data, Dataset):
        made = Dataset.__new__(ListedDataset)
        made.__dict__ = {**vars(data), "_read": _Read()}
        return made
    if isinstance(data, dict):
        return (DatasetDict if isinstance(data, DatasetDict) else dict)(
            {name: listed(part) for name, part in data.items()}
        )
    return data


class _Read(dict[str, list[Any]]):
    """Columns read so far. A copy of the data set is made to have other columns, so it starts with none."""

    def __deepcopy__(self, memo: object) -> _Read:
        return _Read()


class ListedDataset(Dataset):
    """A data set whose columns are lists, read when they are first asked for."""

    _read: _Read

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._read:
            self._read[key] = list(super().__getitem__(key)[:])
        return self._read[key]

    def select(self, *arguments: Any, **options: Any) -> Dataset:
        made: Dataset = listed(super().select(*arguments, **options))
        return made
