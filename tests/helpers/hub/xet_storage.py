"""Xet storage as a server of the Hub has it: packs of chunks (xorbs), and shards that say which chunks make
which file.

Formats after https://huggingface.co/docs/xet (xorb, shard, api). Files are put together from the chunks that
arrived and their SHA-256 is compared with the one announced, so that an upload that was damaged on its way is
refused.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

ENTRY = 48  # bytes of every record of a shard
BOOKEND = b"\xff" * 32
VERIFIED, DESCRIBED = (
    1 << 31,
    1 << 30,
)  # flags of a file: each term is followed by a check, and all by a SHA-256


class DamagedError(ValueError):
    """What arrived is not what was announced."""


@dataclass(frozen=True)
class Term:
    """Chunks `start` to `end` of the xorb `name`, which hold `length` bytes of a file."""

    name: str
    start: int
    end: int
    length: int


@dataclass(frozen=True)
class StoredFile:
    """A file by its Xet hash: of what it is made, and its content."""

    name: str
    terms: tuple[Term, ...]
    sha256: str
    content: bytes


class XetStorage:
    """Xorbs by name and files by Xet hash."""

    def __init__(self) -> None:
        self.xorbs: dict[str, bytes] = {}
        self.files: dict[str, StoredFile] = {}

    def add_shard(self, shard: bytes) -> list[StoredFile]:
        """Put the files of a shard together.

        Raises DamagedError, and forgets its xorbs, where one does not have the SHA-256 announced.
        """
        found = []
        for name, terms, sha256 in _files(shard):
            try:
                content = b"".join(self._chunks(term) for term in terms)
            except (KeyError, ValueError, struct.error, IndexError, OSError):
                content = b""
            if hashlib.sha256(content).hexdigest() != sha256:
                for term in terms:
                    self.xorbs.pop(term.name, None)
                raise DamagedError("the content of the upload does not hash to its name")
            found.append(StoredFile(name, terms, sha256, content))
        self.files |= {file.name: file for file in found}
        return found

    def by_sha256(self, sha256: str) -> StoredFile | None:
        return next((file for file in self.files.values() if file.sha256 == sha256), None)

    def span(self, term: Term) -> tuple[int, int]:
        """First and last byte of the term's chunks within its xorb, both included."""
        places = [(place, place + 8 + packed) for place, packed, _, _ in _headers(self.xorbs[term.name])]
        return places[term.start][0], places[term.end - 1][1] - 1

    def _chunks(self, term: Term) -> bytes:
        xorb = self.xorbs[term.name]
        found = [
            _unpack(xorb[place + 8 : place + 8 + packed], scheme, length)
            for place, packed, scheme, length in _headers(xorb)
        ]
        return b"".join(found[term.start : term.end])


def text_of(name: bytes) -> str:
    """A hash as Xet writes it in addresses: four little-endian words in hexadecimal."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", name))


def _files(shard: bytes) -> list[tuple[str, tuple[Term, ...], str]]:
    """Xet hash, terms and SHA-256 of every file in the shard's first section."""
    found, place = [], ENTRY
    while shard[place : place + 32] != BOOKEND:
        name = text_of(shard[place : place + 32])
        flags, count = struct.unpack_from("<II", shard, place + 32)
        place += ENTRY
        terms = []
        for _ in range(count):
            length, start, end = struct.unpack_from("<III", shard, place + 36)
            terms.append(Term(text_of(shard[place : place + 32]), start, end, length))
            place += ENTRY
        place += ENTRY * count if flags & VERIFIED else 0
        sha256 = ""
        if flags & DESCRIBED:
            sha256 = text_of(shard[place : place + 32])
            place += ENTRY
        found.append((name, tuple(terms), sha256))
    return found


def _headers(xorb: bytes) -> list[tuple[int, int, int, int]]:
    """Of every chunk: where its header is, packed length, scheme, length.

    What follows the chunks is passed over.
    """
    found, place = [], 0
    while place + 8 <= len(xorb) and xorb[place] == 0:
        packed, scheme, length = (
            int.from_bytes(xorb[place + 1 : place + 4], "little"),
            xorb[place + 4],
            xorb[place + 5 : place + 8],
        )
        found.append((place, packed, scheme, int.from_bytes(length, "little")))
        place += 8 + packed
    return found


def _unpack(packed: bytes, scheme: int, length: int) -> bytes:
    """A chunk as it was: stored, LZ4, or LZ4 after its bytes were grouped by their place modulo four."""
    import pyarrow

    if scheme == 0:
        return packed
    plain = pyarrow.decompress(packed, length, codec="lz4", asbytes=True)
    if scheme == 1:
        return bytes(plain)
    groups, start, whole = bytearray(length), 0, bytes(plain)
    for offset in range(4):
        size = len(range(offset, length, 4))
        groups[offset::4] = whole[start : start + size]
        start += size
    return bytes(groups)
