"""Data larger than memory: read record by record and kept on disk, in the cache of `datasets`, as a file that
is mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.data.files import iter_records
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from datasets import Dataset

SHUFFLED = 10_000
"""Records of a Hub set that are in memory at a time, to be drawn from."""


@dataclass(frozen=True)
class Window:
    """What is read of a stream: its first `limit` records, or all of it; `seed` shuffles what may be
    shuffled.
    """

    limit: int | None
    seed: int


def spill_file(file: Path, window: Window) -> Dataset:
    """The records of the local `file`, which is read again only where it has changed."""
    state = file.stat()
    key = ["file", str(file.resolve()), state.st_size, state.st_mtime_ns, window.limit]
    return _spill(lambda: islice(iter_records(file), window.limit), key, str(file))


def spill_hub(name: str, config: str | None, split: str, revision: str | None, window: Window) -> Dataset:
    """The records of a data set on the Hub.

    With a limit no more of it is fetched than a shuffle within 10,000 records needs.
    """
    import datasets

    def records() -> Iterator[dict[str, Any]]:
        stream = datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
        if window.limit is not None:
            stream = stream.shuffle(seed=window.seed, buffer_size=SHUFFLED).take(window.limit)
        yield from stream

    return _spill(records, ["hub", name, config, split, revision, window.limit, window.seed], name)


def _spill(records: Callable[[], Iterator[dict[str, Any]]], key: list[Any], where: str) -> Dataset:
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    fingerprint = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    try:
        return Dataset.from_generator(records, fingerprint=fingerprint)
    except DatasetGenerationError as error:
        reason: BaseException = error.__cause__ or error
        if isinstance(reason, SelfposError | OSError):
            raise reason from None
        raise SelfposError(
            f"{where}: its records do not fit each other: {' '.join(str(reason).split())[:300]}"
        ) from None
