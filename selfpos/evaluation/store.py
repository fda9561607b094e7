"""Records kept by key while a model is scored, so that no text is embedded or tokenised twice: on disk, or in memory only.

On disk a store is a folder of two files that only grow: `records` (the bytes, one record after the other) and `index` (key, place, length and
checksum of each). The records are memory-mapped; the index is in memory, about 200 bytes a record. A record that a stopped process left
half-written, or that the disk has damaged, does not fit its checksum and counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from selfpos.console import log

ENTRY = np.dtype([("key", "V16"), ("place", "<u8"), ("length", "<u8"), ("check", "<u8")])
Key = bytes  # 16 bytes


class Store(Protocol):
    """What the encoder needs of a store."""

    def get(self, key: Key) -> bytes | None:
        """The record under `key`; None when there is none, or none that is whole."""

    def put(self, records: Iterable[tuple[Key, bytes]]) -> None:
        """Keep the records; where they cannot be kept nothing is raised, and they count as not there."""

    def close(self) -> None:
        """Let go of files."""


def key_of(text: str) -> Key:
    """The XXH3-128 of the text."""
    import xxhash

    return xxhash.xxh3_128_digest(text.encode("utf-8", errors="surrogatepass"))


class MemoryStore:
    """Keeps records up to `limit` bytes, beyond it none."""

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
    """The store in the folder `root`/<hash of `about`>, where `about.json` says what its records were made of.

    One process at a time writes to a store; another that opens it meanwhile reads what is there and adds nothing.
    """

    def __init__(self, root: Path, about: dict[str, Any]) -> None:
        description = json.dumps(about, indent=1, sort_keys=True)
        self.folder = root / hashlib.sha256(description.encode()).hexdigest()[:32]
        self._entries: dict[Key, tuple[int, int, int]] = {}
        self._map: mmap.mmap | None = None
        self._lock: int | None = None
        self._writable = self._prepare(description)
        self._open()

    def get(self, key: Key) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        place, length, check = entry
        if self._map is None or place + length > len(self._map):
            self._remap()
        record = self._map[place : place + length] if self._map is not None else b""
        if len(record) == length and _check(record) == check:
            return record
        log.warning("a record in %s is damaged and is made anew", self.folder)
        del self._entries[key]
        return None

    def put(self, records: Iterable[tuple[Key, bytes]]) -> None:
        if not self._writable:
            return
        try:
            with (self.folder / "records").open("ab") as data, (self.folder / "index").open("ab") as index:
                entries = []
                for key, record in records:
                    entries.append((key, data.tell(), len(record), _check(record)))
                    data.write(record)
                data.flush()  # before the index tells of it
                index.write(np.array(entries, ENTRY).tobytes())
            self._entries.update({key: (place, length, check) for key, place, length, check in entries})
        except OSError as error:
            self._writable = False
            log.warning(
                "nothing more is kept in %s (%s); scoring goes on without", self.folder, error.strerror
            )

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._writable = False

    def _prepare(self, description: str) -> bool:
        """Make the folder and take its lock; whether this process may write there."""
        import fcntl

        from selfpos.storage.atomic import write_text

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (self.folder / "about.json").is_file():
                write_text(self.folder / "about.json", description + "\n")
        except BlockingIOError:
            log.info("another process adds to %s; what is there is read, nothing is added", self.folder)
            return False
        except OSError as error:
            log.warning("nothing is kept in %s (%s); scoring goes on without", self.folder, error.strerror)
            return False
        return True

    def _open(self) -> None:
        """Read the index; cut off what was written in part."""
        index, records = self.folder / "index", self.folder / "records"
        if not (index.is_file() and records.is_file()):
            return
        size = records.stat().st_size
        whole = index.stat().st_size // ENTRY.itemsize
        found = np.fromfile(index, ENTRY, count=whole)
        kept = found["place"] + found["length"] <= size
        for key, place, length, check in found[kept].tolist():
            self._entries[bytes(key)] = (place, length, check)
        if self._writable and index.stat().st_size % ENTRY.itemsize:
            os.truncate(index, whole * ENTRY.itemsize)

    def _remap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
        with (self.folder / "records").open("rb") as handle:
            if os.fstat(handle.fileno()).st_size:
                self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)


def _check(record: bytes) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(record)
