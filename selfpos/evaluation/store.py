"""Records kept by key while a model is scored, so that no text is embedded or tokenised twice.

On disk a store is two files that only grow: `records` and `index` (key, offset, length and checksum of each,
read into memory). A record that a stopped process left incomplete, or that the disk damaged, counts as
absent.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import xxhash
from filelock import FileLock, Timeout

from selfpos.console import log
from selfpos.storage.atomic import write_text

ENTRY = np.dtype([("key", "V16"), ("offset", "<u8"), ("length", "<u8"), ("check", "<u8")])
Key = bytes  # 16 bytes


def key_of(text: str) -> Key:
    return xxhash.xxh3_128_digest(text.encode("utf-8", errors="surrogatepass"))


def kept_keys(root: Path, about: dict[str, Any]) -> set[Key]:
    """The keys of the records that `DiskStore(root, about)` has, for which nothing is written."""
    return {bytes(key) for key, *_ in _whole_entries(_folder(root, _description(about)))}


def _description(about: dict[str, Any]) -> str:
    return json.dumps(about, indent=1, sort_keys=True)


def _folder(root: Path, description: str) -> Path:
    return root / hashlib.sha256(description.encode()).hexdigest()[:32]


def _whole_entries(folder: Path) -> list[tuple[bytes, int, int, int]]:
    """Key, offset, length and checksum of each record that was written to its end."""
    index, records = folder / "index", folder / "records"
    if not (index.is_file() and records.is_file()):
        return []
    entries = np.fromfile(index, ENTRY, count=index.stat().st_size // ENTRY.itemsize)
    complete = entries["offset"] + entries["length"] <= records.stat().st_size
    whole: list[tuple[bytes, int, int, int]] = entries[complete].tolist()
    return whole


class MemoryStore:
    """Keeps records up to `limit` bytes: `get` gives None for others."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._records: dict[Key, bytes] = {}

    def get(self, key: Key) -> bytes | None:
        return self._records.get(key)

    def put(self, records: Iterable[tuple[Key, bytes]]) -> None:
        for key, record in records:
            if len(record) <= self._left and key not in self._records:
                self._records[key] = record
                self._left -= len(record)

    def close(self) -> None:
        self._records.clear()


class DiskStore:
    """The store in the folder `root`/<hash of `about`>, where `about.json` says what its records belong to.

    One process at a time writes to it; others read. What cannot be kept counts as absent; nothing is raised.
    """

    def __init__(self, root: Path, about: dict[str, Any]) -> None:
        description = _description(about)
        self.folder = _folder(root, description)
        self._entries: dict[Key, tuple[int, int, int]] = {}
        self._records: BinaryIO | None = None
        self._lock = FileLock(self.folder / "lock", blocking=False)
        self._writable = self._prepare(description)
        self._read_index()

    def get(self, key: Key) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        offset, length, check = entry
        if self._records is None:
            self._records = (self.folder / "records").open("rb", buffering=0)
        self._records.seek(offset)
        record = self._records.read(length)
        if xxhash.xxh3_64_intdigest(record) == check:
            return record
        log.warning("a record in %s is damaged and is computed again", self.folder)
        del self._entries[key]
        return None

    def put(self, records: Iterable[tuple[Key, bytes]]) -> None:
        if not self._writable:
            return
        try:
            with (self.folder / "records").open("ab") as data, (self.folder / "index").open("ab") as index:
                entries = []
                for key, record in records:
                    entries.append((key, data.tell(), len(record), xxhash.xxh3_64_intdigest(record)))
                    data.write(record)
                data.flush()  # before the index refers to it
                index.write(np.array(entries, ENTRY).tobytes())
            self._entries.update({key: (offset, length, check) for key, offset, length, check in entries})
        except OSError as error:
            self._writable = False
            log.warning("no more records are kept in %s (%s); scoring continues", self.folder, error.strerror)

    def close(self) -> None:
        if self._records is not None:
            self._records.close()
            self._records = None
        self._lock.release()
        self._writable = False

    def _prepare(self, description: str) -> bool:
        """Make the folder and take its lock; returns whether this process may write there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            if not (self.folder / "about.json").is_file():
                write_text(self.folder / "about.json", description + "\n")
        except Timeout:
            log.info("another process writes to %s; its records are read, none are added", self.folder)
            return False
        except OSError as error:
            log.warning("no records are kept in %s (%s); scoring continues", self.folder, error.strerror)
            return False
        return True

    def _read_index(self) -> None:
        """Read the index; cut off an incomplete entry."""
        for key, offset, length, check in _whole_entries(self.folder):
            self._entries[bytes(key)] = (offset, length, check)
        index = self.folder / "index"
        if self._writable and index.is_file() and (torn := index.stat().st_size % ENTRY.itemsize):
            os.truncate(index, index.stat().st_size - torn)


Store: TypeAlias = "MemoryStore | DiskStore"
