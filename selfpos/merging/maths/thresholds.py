"""The exact k-th largest score of a tensor or of a whole model, streamed, without sorting.

A sparse sample brackets the threshold; one pass counts what lies above the bracket and collects the little
inside. If the bracket misses or holds too much for memory, two passes over histograms of the floats' bits
find the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from selfpos.merging.method import Scope
from selfpos.merging.stream import Chunk, Ranges, Stream

Score = Callable[[Chunk], list[np.ndarray]]
"""A chunk's non-negative scores, flat float32, an array for each group whose threshold is wanted."""

Counts = Callable[[str, int], list[list[int]]]
"""(key, elements) -> per group, how many of the largest scores (k) to keep, one count per threshold."""

AT_ONCE = 1 << 20  # elements up to which a tensor's scores are simply held
SAMPLED = 128  # one element in so many is sampled for the bracket,
LARGEST_SAMPLE = 1 << 21  # but not many more than these
MOST_INSIDE = 8 << 20  # elements, for each threshold, up to which those inside a bracket are collected
SLACK = 0.003  # half the width of the bracket, as a share of the elements


def collected(numel: int, groups: int) -> int:
    """About how many bytes samples and brackets of `numel` elements take at most, for `groups` thresholds."""
    sample = min(numel // SAMPLED, LARGEST_SAMPLE)
    inside = min(math.ceil(3 * SLACK * numel), MOST_INSIDE)
    return 4 * groups * (2 * sample + 2 * inside)


def magnitude(chunk: Chunk) -> list[np.ndarray]:
    """|V_i|, one score per vector."""
    return [np.abs(vector).reshape(-1) for vector in chunk.vectors]


def kept(share: float, numel: int) -> int:
    """How many of `numel` elements `share` keeps: rounded up, so that any share above 0 keeps one."""
    return min(numel, math.ceil(share * numel - 1e-9))


def thresholds(
    stream: Stream, counts: Counts, scope: Scope, score: Score = magnitude
) -> dict[str, list[list[float]]]:
    """Per tensor, group and count k: the k-th largest score. Scores ≥ it are k, and ties with the last.

    With scope 'model' a group's elements are those of all tensors. Count 0 has the threshold infinity.
    """
    sizes = {key: stream.base.tensors[key].numel for key in stream.keys}
    if scope == "model":
        wanted = counts(stream.keys[0], sum(sizes.values()))
        return dict.fromkeys(stream.keys, _select(stream, stream.keys, wanted, score))
    ranks = {key: counts(key, size) for key, size in sizes.items()}
    small = [(key,) for key in stream.keys if sizes[key] <= AT_ONCE]
    selected = stream.map(lambda key: _select_at_once(stream, key, ranks[key], score), small)
    result = {key: values for (key,), values in zip(small, selected, strict=True)}
    for key in stream.keys:
        if key not in result:
            result[key] = _select(stream, [key], ranks[key], score)
    return result


def _select_at_once(stream: Stream, key: str, ranks: list[list[int]], score: Score) -> list[list[float]]:
    chunks = [score(chunk) for chunk in stream.chunks(key)]
    if not chunks:
        return [[math.inf for _ in group] for group in ranks]
    groups = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    return [[_largest(values, rank) for rank in group] for values, group in zip(groups, ranks, strict=True)]


def _largest(values: np.ndarray, rank: int) -> float:
    """The rank-th largest of `values`; infinity for rank 0."""
    return float(np.partition(values, values.size - rank)[values.size - rank]) if rank else math.inf


@dataclass
class _Counts:
    """How many scores lie above a bracket, from `high` on and from `low` on, and those strictly inside."""

    low: float
    high: float
    above: int = 0
    from_high: int = 0
    from_low: int = 0
    inside: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray) -> None:
        at_high = values >= self.high
        if self.high > self.low:
            self.inside.append(values[(values > self.low) ^ at_high])
        self.above += int(np.count_nonzero(values > self.high))
        self.from_high += int(np.count_nonzero(at_high))
        self.from_low += int(np.count_nonzero(values >= self.low))

    def join(self, other: _Counts) -> None:
        self.above += other.above
        self.from_high += other.from_high
        self.from_low += other.from_low
        self.inside += other.inside

    def threshold(self, rank: int) -> float | None:
        """The rank-th largest score; None where it lies outside the bracket."""
        if rank == 0:
            return math.inf
        if self.above < rank <= self.from_high:
            return self.high
        if not self.from_high < rank <= self.from_low:
            return None
        inside = np.concatenate([np.empty(0, np.float32), *self.inside])
        return _largest(inside, rank - self.from_high) if rank - self.from_high <= inside.size else self.low


def _select(stream: Stream, keys: Sequence[str], ranks: list[list[int]], score: Score) -> list[list[float]]:
    total = sum(stream.base.tensors[key].numel for key in keys)
    if 3 * SLACK * total > MOST_INSIDE:
        return _by_histogram(stream, keys, score, ranks)
    samples = _sample(stream, keys, score, len(ranks))
    # All counts of a task in one flat list: (group, rank) in order.
    wanted = [(group, rank) for group, counts in enumerate(ranks) for rank in counts]
    brackets = [_bracket(samples[group], rank, total) for group, rank in wanted]

    def count(key: str, ranges: Ranges) -> list[_Counts]:
        counts = [_Counts(low, high) for low, high in brackets]
        for chunk in stream.chunks(key, ranges):
            scores = score(chunk)
            for (group, _), entry in zip(wanted, counts, strict=True):
                entry.add(scores[group])
        return counts

    totals = [_Counts(low, high) for low, high in brackets]
    for counts in stream.map(count, stream.tasks(keys)):
        for entry, part in zip(totals, counts, strict=True):
            entry.join(part)
    values = [entry.threshold(rank) for entry, (_, rank) in zip(totals, wanted, strict=True)]
    if any(value is None for value in values):
        return _by_histogram(stream, keys, score, ranks)
    result: list[list[float]] = [[] for _ in ranks]
    for value, (group, _) in zip(values, wanted, strict=True):
        result[group].append(cast("float", value))
    return result


def _sample(stream: Stream, keys: Sequence[str], score: Score, groups: int) -> list[np.ndarray]:
    """A share of every chunk's scores, from its beginning, per group, ascending."""
    parts: list[list[np.ndarray]] = [[] for _ in range(groups)]
    one_in = max(SAMPLED, sum(stream.base.tensors[key].numel for key in keys) // LARGEST_SAMPLE)

    def read(key: str, ranges: Ranges) -> list[list[np.ndarray]]:
        heads = [(start, start + max(1, (stop - start) // one_in)) for start, stop in ranges]
        return [score(chunk) for chunk in stream.chunks(key, heads)]

    for chunks in stream.map(read, stream.tasks(keys)):
        for scores in chunks:
            for part, values in zip(parts, scores, strict=True):
                part.append(values)
    return [np.sort(np.concatenate(part)) for part in parts]


def _bracket(sample: np.ndarray, rank: int, total: int) -> tuple[float, float]:
    """(low, high) between which the rank-th largest of `total` very likely lies, from an ascending sample."""
    size, share = sample.size, rank / total
    slack = max(8 * math.sqrt(size * share * (1 - share)), SLACK * size) + 8
    low, high = size * (1 - share) - slack, size * (1 - share) + slack
    above = float(sample[math.ceil(high)]) if high < size - 1 else math.inf
    return float(sample[int(low)]) if low >= 0 else 0.0, above


def _by_histogram(
    stream: Stream, keys: Sequence[str], score: Score, ranks: list[list[int]]
) -> list[list[float]]:
    """The thresholds, as bits: the upper 16 from one pass, the lower from a second."""
    wanted = [(group, rank) for group, counts in enumerate(ranks) for rank in counts if rank]
    upper = _histograms(stream, keys, score, [(group, None) for group, _ in wanted])
    bins = [_highest_bin(counts, rank) for counts, (_, rank) in zip(upper, wanted, strict=True)]
    lower = _histograms(
        stream, keys, score, [(group, top) for (group, _), (top, _) in zip(wanted, bins, strict=True)]
    )
    bits = [
        top << 16 | _highest_bin(counts, left)[0] for counts, (top, left) in zip(lower, bins, strict=True)
    ]
    values = iter(np.array(bits, np.uint32).view(np.float32).tolist())
    return [[next(values) if rank else math.inf for rank in group] for group in ranks]


def _histograms(
    stream: Stream, keys: Sequence[str], score: Score, wanted: list[tuple[int, int | None]]
) -> np.ndarray:
    """Per (group, upper) wanted: counts of the upper 16 bits, or of the lower where the upper are `upper`."""

    def count(key: str, ranges: Ranges) -> np.ndarray:
        counts = np.zeros((len(wanted), 1 << 16), np.int64)
        for chunk in stream.chunks(key, ranges):
            bits = [np.abs(values).view(np.uint32) for values in score(chunk)]  # abs: -0.0 is 0
            for row, (group, upper) in zip(counts, wanted, strict=True):
                half = bits[group] >> np.uint32(16)
                if upper is not None:
                    half = bits[group][half == upper] & np.uint32(0xFFFF)
                row += np.bincount(half, minlength=1 << 16)
        return counts

    total = np.zeros((len(wanted), 1 << 16), np.int64)
    for part in stream.map(count, stream.tasks(keys)):
        total += part
    return total


def _highest_bin(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that holds the rank-th largest, and its rank within that bin."""
    from_above = np.cumsum(counts[::-1])
    index = int(np.searchsorted(from_above, rank))
    return counts.size - 1 - index, rank - int(from_above[index] - counts[::-1][index])
