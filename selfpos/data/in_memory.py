"""A data set in memory, kept as a file, so that a probe can be drawn from it again."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from selfpos.errors import OperationError
from selfpos.storage.hashing import sha256_file
from selfpos.storage.locate import cache_folder

KEPT = "datasets"  # in the cache


def kept(data: Any) -> Any:
    """`data`, but for a `datasets.Dataset` the Parquet file in the cache that holds it, named by its hash.

    Raises ValueError for a `DatasetDict` and for data sets that are read as a stream, OperationError where
    the cache cannot be written.
    """
    datasets = sys.modules.get("datasets")
    if datasets is None:  # who has a data set has imported it
        return data
    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise ValueError(f"holds several splits: give one, as data[{next(iter(data), 'train')!r}]")
    if isinstance(data, datasets.IterableDataset):
        raise ValueError("is read as a stream: give its files, or 'hub:NAME' with streaming")
    if not isinstance(data, datasets.Dataset):
        return data
    folder = cache_folder() / KEPT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            written = Path(scratch) / "data.parquet"
            data.to_parquet(written)
            return str(written.replace(folder / f"{sha256_file(written)[:16]}.parquet"))
    except OSError as error:
        raise OperationError(
            f"the data set cannot be kept in {folder}: {error.strerror or error}; make room there, or set "
            "XDG_CACHE_HOME to another folder"
        ) from None
