"""Records that hold lists of texts with the list of their labels, as sets made for evaluation on the Hub often do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks.task import TaskType


def unnested(dataset: Dataset, kind: TaskType, columns: Mapping[str, str] | None) -> Dataset:
    """`dataset` with one record for each place of its lists, when all of the columns that `kind` takes hold lists; else as it is.

    Only those columns are kept then, under their own names. Raises SelfposError when the lists of a record differ in length.
    """
    from datasets import Dataset as Records

    taken = list(kind.find_columns(dataset, columns).values())
    if not taken or not all(
        getattr(dataset.features[column], "feature", None) is not None for column in taken
    ):
        return dataset
    flat: dict[str, list] = {column: [] for column in taken}
    for number, record in enumerate(dataset.select_columns(taken), start=1):
        counts = {column: len(values or ()) for column, values in record.items()}
        if len(set(counts.values())) > 1:
            raise SelfposError(
                f"record {number} holds lists of different length: {', '.join(f'{n} {c}' for c, n in counts.items())}"
            )
        for column, values in record.items():
            flat[column] += values or ()
    return Records.from_dict(flat)
