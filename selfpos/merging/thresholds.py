"""The exact k-th largest score of a tensor or of a whole model, streamed, without sorting.

A sparse sample brackets the threshold. One pass then counts what lies above the bracket and collects the little that lies inside, among which
the k-th is selected. Should the bracket miss (the counts tell), two passes over a histogram of the float's bits find it whatever the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from selfpos.errors import SelfposError
from selfpos.merging.registry import Scope
from selfpos.merging.stream import Chunk, Stream

Score = Callable[[Chunk], list[np.ndarray]]
"""A chunk's non-negative scores, flat float32, one array for each group whose threshold is wanted; without side effects on the chunk."""

Counts = Callable[[str, int], list[list[int]]]
"""(key, elements) -> per group, the counts k of the largest scores to be kept: the thresholds wanted."""

AT_ONCE = 1 << 20  # elements up to which a tensor's scores are simply held
SAMPLED = 128  # one element in so many is looked at to bracket the threshold
SLACK = 0.003  # half the width of the bracket, as a share of the elements


def magnitude(chunk: Chunk) -> list[np.ndarray]:
    """|V_i|, one score per vector."""
    return [np.abs(vector).reshape(-1) for vector in chunk.vectors]


def kept(share: float, numel: int) -> int:
    """How many of `numel` elements the share `share` keeps: rounded up, so that a lone element is kept by any share above 0."""
    return min(numel, math.ceil(share * numel - 1e-9))


def thresholds(stream: Stream, counts: Counts, scope: Scope, score: Score = magnitude) -> dict[str, list[list[float]]]:
    """For each tensor, group and count k: the k-th largest score, so that keeping scores ≥ it keeps k (and all that tie with the last).

    With scope 'model' a group's elements are those of all tensors together. Count 0 has the threshold infinity. Raises SelfposError when
    counts differ between tensors that have one threshold together.
    """
    sizes = {key: stream.base.tensors[key].numel for key in stream.keys}
    if scope == "model":
        wanted = [counts(key, sum(sizes.values())) for key in stream.keys]
        if any(other != wanted[0] for other in wanted):
            raise SelfposError(
                "the density differs between tensors, so one threshold for the whole model has no meaning; set scope to tensor"
            )
        return dict.fromkeys(stream.keys, _select(stream, stream.keys, wanted[0], score) if wanted else [])
    result = {}
    ranks = {key: counts(key, size) for key, size in sizes.items()}
    small = [key for key in stream.keys if sizes[key] <= AT_ONCE]
    for key, values in zip(
        small, stream.map(lambda key: _select_at_once(stream, key, ranks[key], score), ((key,) for key in small)), strict=True
    ):
        result[key] = values
    for key in stream.keys:
        if key not in result:
            result[key] = _select(stream, [key], ranks[key], score)
    return result


def _select_at_once(stream: Stream, key: str, ranks: list[list[int]], score: Score) -> list[list[float]]:
    parts: list[list[np.ndarray]] = [[] for _ in ranks]
    for chunk in stream.chunks(key):
        for part, values in zip(parts, score(chunk), strict=True):
            part.append(values)
    return [
        [_largest(np.concatenate(part), rank) if part else math.inf for rank in group] for part, group in zip(parts, ranks, strict=True)
    ]


def _largest(values: np.ndarray, rank: int) -> float:
    """The rank-th largest of `values`; infinity for rank 0."""
    return float(np.partition(values, values.size - rank)[values.size - rank]) if rank else math.inf


def _select(stream: Stream, keys: Sequence[str], ranks: list[list[int]], score: Score) -> list[list[float]]:
    total = sum(stream.base.tensors[key].numel for key in keys)
    samples = _sample(stream, keys, score, len(ranks))
    brackets = [[_bracket(sample, rank, total) for rank in group] for sample, group in zip(samples, ranks, strict=True)]

    def look(key: str, ranges: list[tuple[int, int]]) -> list[list[tuple[int, int, int, list[np.ndarray]]]]:
        seen: list[list[tuple[int, int, int, list[np.ndarray]]]] = [[(0, 0, 0, []) for _ in group] for group in brackets]
        for chunk in stream.chunks(key, ranges):
            for group, values, limits in zip(seen, score(chunk), brackets, strict=True):
                for index, (low, high) in enumerate(limits):
                    above, from_high, from_low, inside = group[index]
                    at_high = values >= high
                    within = (values > low) ^ at_high if high > low else np.zeros(values.shape, bool)
                    inside.append(values[within])
                    counts = (np.count_nonzero(values > high), np.count_nonzero(at_high), np.count_nonzero(values >= low))
                    group[index] = (above + int(counts[0]), from_high + int(counts[1]), from_low + int(counts[2]), inside)
        return seen

    parts = list(stream.map(look, stream.tasks(keys)))
    found = []
    for index, group in enumerate(ranks):
        values = []
        for place, rank in enumerate(group):
            low, high = brackets[index][place]
            seen = [part[index][place] for part in parts]
            above, from_high, from_low = (sum(item[count] for item in seen) for count in range(3))  # type: ignore[misc]
            if rank == 0:
                values.append(math.inf)
            elif above < rank <= from_high:
                values.append(high)
            elif from_high < rank <= from_low:
                inside = np.concatenate([piece for item in seen for piece in item[3]])
                values.append(_largest(inside, rank - from_high) if rank - from_high <= inside.size else low)
            else:
                values.append(_by_histogram(stream, keys, score, index, rank))
        found.append(values)
    return found


def _sample(stream: Stream, keys: Sequence[str], score: Score, groups: int) -> list[np.ndarray]:
    """A share of every chunk's scores, from its beginning, per group, ascending."""
    parts: list[list[np.ndarray]] = [[] for _ in range(groups)]

    def read(key: str, ranges: list[tuple[int, int]]) -> list[list[np.ndarray]]:
        heads = [(start, start + max(1, (stop - start) // SAMPLED)) for start, stop in ranges]
        return [score(chunk) for chunk in stream.chunks(key, heads)]

    for chunks in stream.map(read, stream.tasks(keys)):
        for scores in chunks:
            for part, values in zip(parts, scores, strict=True):
                part.append(values)
    return [np.sort(np.concatenate(part)) for part in parts]


def _bracket(sample: np.ndarray, rank: int, total: int) -> tuple[float, float]:
    """(low, high) between which the rank-th largest of `total` very likely lies, from an ascending sample."""
    size = sample.size
    share = rank / total
    slack = max(8 * math.sqrt(size * share * (1 - share)), SLACK * size) + 8
    low, high = size * (1 - share) - slack, size * (1 - share) + slack
    return (float(sample[int(low)]) if low >= 0 else 0.0), (float(sample[math.ceil(high)]) if high < size - 1 else math.inf)


def _by_histogram(stream: Stream, keys: Sequence[str], score: Score, group: int, rank: int) -> float:
    """The rank-th largest score: the upper 16 of its 32 bits from one pass, the lower from a second. Non-negative floats order like their bits."""
    upper, left = _highest_bin(_histogram(stream, keys, score, group, None), rank)
    lower, _ = _highest_bin(_histogram(stream, keys, score, group, upper), left)
    return float(np.array(upper << 16 | lower, np.uint32).view(np.float32))


def _histogram(stream: Stream, keys: Sequence[str], score: Score, group: int, upper: int | None) -> np.ndarray:
    def count(key: str, ranges: list[tuple[int, int]]) -> np.ndarray:
        counts = np.zeros(1 << 16, np.int64)
        for chunk in stream.chunks(key, ranges):
            bits = np.abs(score(chunk)[group]).view(np.uint32)  # abs: -0.0 is 0
            picked = bits >> np.uint32(16) if upper is None else bits[bits >> np.uint32(16) == upper] & np.uint32(0xFFFF)
            counts += np.bincount(picked, minlength=1 << 16)
        return counts

    return _sum(stream.map(count, stream.tasks(keys)))


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    total = np.zeros(1 << 16, np.int64)
    for part in parts:
        total += part
    return total


def _highest_bin(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that holds the rank-th largest, and its rank within that bin."""
    from_above = np.cumsum(counts[::-1])
    index = int(np.searchsorted(from_above, rank))
    return counts.size - 1 - index, rank - int(from_above[index] - counts[::-1][index])
