"""Texts that are nearly the same: MinHash proposes, the exact Jaccard similarity of their shingles decides.

Shingles are runs of `LENGTH` characters of the normalised text, so that short texts and scripts without
spaces are compared like any other. Signatures come from the library rensa (Broder 1997's MinHash, in the
manner of Dahlgaard, Knudsen and Thorup 2017); they are compared in bands, as Leskovec, Rajaraman and Ullman
(Mining of Massive Datasets, section 3.4) describe.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

LENGTH = 5
MISSED = 1e-3  # share of pairs at the threshold itself that the bands may miss; of nearer pairs far fewer
SLOTS = 256  # of a signature, at most
BATCH = 500  # texts whose signatures are made at once: what they take stays in a core's cache
_WORDS = re.compile(r"\w+")
_PRIME = np.uint64(0x9E3779B97F4A7C15)


def normalise(text: str) -> str:
    """The words of `text`, without case, punctuation and differences in spacing; compatible characters of
    Unicode are made one (NFKC).
    """
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))


class NearIndex:
    """Normalised texts under the bands of their MinHash signatures, which finds those near to other texts.

    Memory: the texts, and about 50 bytes for each of some thirty bands a text.
    """

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self.texts, self.threshold = list(texts), threshold
        self.bands, self.rows = band_shape(threshold)
        self._rows_with: dict[int, list[int]] = defaultdict(list)
        for start in range(0, len(self.texts), BATCH):
            keys = self._keys(self.texts[start : start + BATCH])
            for row, row_keys in enumerate(keys.tolist(), start=start):
                for key in row_keys:
                    self._rows_with[key].append(row)
        self._known = np.sort(np.fromiter(self._rows_with, np.uint64, len(self._rows_with)))

    def near(self, texts: Sequence[str]) -> dict[int, list[int]]:
        """Index in `texts` → the rows of the index near to that text, in order.

        Texts without one are left out.
        """
        if not self.texts:
            return {}
        result: dict[int, list[int]] = {}
        for start in range(0, len(texts), BATCH):
            keys = self._keys(texts[start : start + BATCH])
            known = self._known[np.searchsorted(self._known, keys).clip(max=len(self._known) - 1)] == keys
            for index in np.flatnonzero(known.any(1)).tolist():
                shared = keys[index][known[index]].tolist()
                candidates = {row for key in shared for row in self._rows_with[key]}
                wanted = shingles(texts[start + index])
                close = [row for row in sorted(candidates) if self._is_near(wanted, self.texts[row])]
                if close:
                    result[start + index] = close
        return result

    def _is_near(self, wanted: frozenset[str], text: str) -> bool:
        if max(1, len(text) - LENGTH + 1) < self.threshold * len(
            wanted
        ):  # too short to share enough shingles
            return False
        others = shingles(text)
        shared = len(wanted & others)
        return shared >= self.threshold * (len(wanted) + len(others) - shared)

    def _keys(self, texts: Sequence[str]) -> np.ndarray:
        """One number for each band of each text, (n, bands). Equal bands have equal numbers."""
        from rensa import RMinHash

        hashes, offsets = _shingle_hashes(texts)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, self.bands * self.rows, 1)
        values = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(texts), self.bands, self.rows)
        keys = np.broadcast_to(np.arange(self.bands, dtype=np.uint64), values.shape[:2]).copy()
        for row in range(self.rows):
            keys = (keys ^ values[:, :, row]) * _PRIME
            keys ^= keys >> np.uint64(29)
        return keys


def band_shape(threshold: float) -> tuple[int, int]:
    """(bands, rows) with the most rows of which `SLOTS` slots hold bands enough to find a pair at `threshold`
    but for `MISSED`.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold must lie above 0 and up to 1, found {threshold:g}")
    best = (SLOTS, 1)
    for rows in range(1, 9):
        chance = threshold**rows
        bands = 1 if chance == 1 else math.ceil(math.log(MISSED) / math.log1p(-chance))
        if bands * rows <= SLOTS:
            best = (bands, rows)
    return best


def shingles(text: str) -> frozenset[str]:
    """The runs of `LENGTH` characters in `text`; a shorter text is its own only one."""
    return frozenset(text[start : start + LENGTH] for start in range(max(1, len(text) - LENGTH + 1)))


def _shingle_hashes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the shingles of all texts, one after the other, and where each text's begin and end, (n + 1);
    both uint64.
    """
    padded = [text.ljust(LENGTH, "\0") for text in texts]
    characters = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes = np.zeros(len(characters) - LENGTH + 1, np.uint64)
    for place in range(LENGTH):
        hashes *= _PRIME
        hashes += characters[place : place + len(hashes)]
    hashes ^= hashes >> np.uint64(31)
    hashes *= _PRIME
    lengths = np.array([len(text) for text in padded])
    counts = lengths - LENGTH + 1
    ends = np.cumsum(lengths)
    inside = np.ones(len(characters), bool)
    for back in range(1, LENGTH):  # no shingle begins in the last four characters of a text
        inside[ends - back] = False
    return hashes[inside[: len(hashes)]], np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
