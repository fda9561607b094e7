"""The exact k-th largest score of a tensor or of a whole model, streamed, without sorting.

A sparse sample brackets the threshold. One pass then counts what lies above the bracket and collects the little that lies inside, among which
the k-th is selected. Should the bracket miss (the counts tell), or hold more than memory should, two passes over histograms of the floats' bits
find it whatever the values and however many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from selfpos.merging.registry import Scope
from selfpos.merging.stream import Chunk, Stream

Score = Callable[[Chunk], list[np.ndarray]]
"""A chunk's non-negative scores, flat float32, one array for each group whose threshold is wanted; without side effects on the chunk."""

Counts = Callable[[str, int], list[list[int]]]
"""(key, elements) -> per group, the counts k of the largest scores to be kept: the thresholds wanted."""

AT_ONCE = 1 << 20  # elements up to which a tensor's scores are simply held
SAMPLED = 128  # one element in so many is looked at to bracket the threshold,
LARGEST_SAMPLE = 1 << 21  # but not many more than these
MOST_INSIDE = 8 << 20  # elements, for each threshold, up to which those inside a bracket are collected
SLACK = 0.003  # half the width of the bracket, as a share of the elements


def collected(numel: int, groups: int) -> int:
    """About how many bytes samples and brackets of `numel` elements take at most, for `groups` thresholds."""
    return (
        4
        * groups
        * (2 * min(numel // SAMPLED, LARGEST_SAMPLE) + 2 * min(math.ceil(3 * SLACK * numel), MOST_INSIDE))
    )


def magnitude(chunk: Chunk) -> list[np.ndarray]:
    """|V_i|, one score per vector."""
    return [np.abs(vector).reshape(-1) for vector in chunk.vectors]


def kept(share: float, numel: int) -> int:
    """How many of `numel` elements the share `share` keeps: rounded up, so that a lone element is kept by any share above 0."""
    return min(numel, math.ceil(share * numel - 1e-9))


def thresholds(
    stream: Stream, counts: Counts, scope: Scope, score: Score = magnitude
) -> dict[str, list[list[float]]]:
    """For each tensor, group and count k: the k-th largest score, so that keeping scores ≥ it keeps k (and all that tie with the last).

    With scope 'model' a group's elements are those of all tensors together, and its counts the same at each. Count 0 has the threshold infinity.
    """
    sizes = {key: stream.base.tensors[key].numel for key in stream.keys}
    if scope == "model":
        wanted = counts(stream.keys[0], sum(sizes.values()))
        return dict.fromkeys(stream.keys, _select(stream, stream.keys, wanted, score))
    result = {}
    ranks = {key: counts(key, size) for key, size in sizes.items()}
    small = [key for key in stream.keys if sizes[key] <= AT_ONCE]
    for key, values in zip(
        small,
        stream.map(lambda key: _select_at_once(stream, key, ranks[key], score), ((key,) for key in small)),
        strict=True,
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
        [_largest(np.concatenate(part), rank) if part else math.inf for rank in group]
        for part, group in zip(parts, ranks, strict=True)
    ]


def _largest(values: np.ndarray, rank: int) -> float:
    """The rank-th largest of `values`; infinity for rank 0."""
    return float(np.partition(values, values.size - rank)[values.size - rank]) if rank else math.inf


def _select(stream: Stream, keys: Sequence[str], ranks: list[list[int]], score: Score) -> list[list[float]]:
    total = sum(stream.base.tensors[key].numel for key in keys)
    if 3 * SLACK * total > MOST_INSIDE:
        return _by_histogram(stream, keys, score, ranks)
    samples = _sample(stream, keys, score, len(ranks))
    brackets = [
        [_bracket(sample, rank, total) for rank in group]
        for sample, group in zip(samples, ranks, strict=True)
    ]

    def look(key: str, ranges: list[tuple[int, int]]) -> list[list[tuple[int, int, int, list[np.ndarray]]]]:
        seen: list[list[tuple[int, int, int, list[np.ndarray]]]] = [
            [(0, 0, 0, []) for _ in group] for group in brackets
        ]
        for chunk in stream.chunks(key, ranges):
            for group, values, limits in zip(seen, score(chunk), brackets, strict=True):
                for index, (low, high) in enumerate(limits):
                    above, from_high, from_low, inside = group[index]
                    at_high = values >= high
                    within = (values > low) ^ at_high if high > low else np.zeros(values.shape, bool)
                    inside.append(values[within])
                    counts = (
                        np.count_nonzero(values > high),
                        np.count_nonzero(at_high),
                        np.count_nonzero(values >= low),
                    )
                    group[index] = (
                        above + int(counts[0]),
                        from_high + int(counts[1]),
                        from_low + int(counts[2]),
                        inside,
                    )
        return seen

    parts = list(stream.map(look, stream.tasks(keys)))
    found: list[list[float]] = []
    for index, group in enumerate(ranks):
        values: list[float] = []
        found.append(values)
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
                return _by_histogram(stream, keys, score, ranks)
    return found


def _sample(stream: Stream, keys: Sequence[str], score: Score, groups: int) -> list[np.ndarray]:
    """A share of every chunk's scores, from its beginning, per group, ascending."""
    parts: list[list[np.ndarray]] = [[] for _ in range(groups)]
    one_in = max(SAMPLED, sum(stream.base.tensors[key].numel for key in keys) // LARGEST_SAMPLE)

    def read(key: str, ranges: list[tuple[int, int]]) -> list[list[np.ndarray]]:
        heads = [(start, start + max(1, (stop - start) // one_in)) for start, stop in ranges]
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
    return (float(sample[int(low)]) if low >= 0 else 0.0), (
        float(sample[math.ceil(high)]) if high < size - 1 else math.inf
    )


def _by_histogram(
    stream: Stream, keys: Sequence[str], score: Score, ranks: list[list[int]]
) -> list[list[float]]:
    """The thresholds: the upper 16 of their 32 bits from one pass, the lower from a second. Non-negative floats order like their bits."""
    wanted = [(group, rank) for group, found in enumerate(ranks) for rank in found if rank]
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
    """For each (group, upper) wanted: how many scores have which upper 16 bits, or, of those with the upper bits `upper`, which lower."""

    def count(key: str, ranges: list[tuple[int, int]]) -> np.ndarray:
        counts = np.zeros((len(wanted), 1 << 16), np.int64)
        for chunk in stream.chunks(key, ranges):
            bits = [np.abs(values).view(np.uint32) for values in score(chunk)]  # abs: -0.0 is 0
            for row, (group, upper) in zip(counts, wanted, strict=True):
                head = bits[group] >> np.uint32(16)
                row += np.bincount(
                    head if upper is None else bits[group][head == upper] & np.uint32(0xFFFF),
                    minlength=1 << 16,
                )
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
