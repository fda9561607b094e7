"""Main scores of resampled examples. Each takes weights (b, n), how often each example was drawn in each of b resamples, and gives b scores.

A resample is not gathered and ranked anew: ranks, precisions and contingency tables of weighted examples follow from one order of the examples and
cumulative sums, so that thousands of resamples of thousands of pairs take a second.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from selfpos.scores.examples import Part

Array = np.ndarray
Measure = Callable[[Array], Array]
CELLS = 2_000_000  # numbers in memory at once, per array


def measure_of(part: Part) -> Measure:
    """The main score of `part` as a function of weights (b, n) whose rows sum to n."""
    return KINDS[part.kind](part)


def score_of(part: Part) -> float:
    """The main score of `part` as it is, every example counted once."""
    return float(measure_of(part)(np.ones((1, part.count)))[0])


def resamples(parts: list[Part], draws: int, seed: int) -> Array:
    """Scores (draws, len(parts)) of `parts` on `draws` resamples of their examples, drawn with replacement, the same for all of them."""
    (count,) = {part.count for part in parts}
    measures = [measure_of(part) for part in parts]
    rng = np.random.default_rng(seed)
    found = np.empty((draws, len(parts)))
    step = max(1, CELLS // count)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        chosen = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        for column, measure in enumerate(measures):
            found[start : start + rows, column] = measure(weights)
    return found


def _mean(part: Part) -> Measure:
    values = part.arrays["values"].astype(np.float64)
    return lambda weights: weights @ values / weights.sum(1)


def _pearson(part: Part) -> Measure:
    one, two = (part.arrays[name].astype(np.float64) for name in ("scores", "gold"))
    return lambda weights: _correlation(weights, one - one.mean(), two - two.mean())


def _spearman(part: Part) -> Measure:
    one, two = (_ranking(part.arrays[name]) for name in ("scores", "gold"))
    return lambda weights: _correlation(weights, one(weights), two(weights))


def _correlation(weights: Array, one: Array, two: Array) -> Array:
    """Weighted correlation of each row; 0 where one side does not vary."""
    total = weights.sum(1, keepdims=True)
    one = one - (weights * one).sum(1, keepdims=True) / total
    two = two - (weights * two).sum(1, keepdims=True) / total
    weighted = weights * one
    squares = (weighted * one).sum(1) * (weights * two * two).sum(1)
    return np.divide((weighted * two).sum(1), np.sqrt(squares), out=np.zeros(len(weights)), where=squares > 0)


def _ranking(values: Array) -> Measure:
    """Average ranks (b, n) of `values` in each resample, for the examples drawn in it.

    An example's copies and its ties share ranks: those after everything smaller, up to the sum of their own weights.
    """
    order, ends, group = _tied_order(values)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))

    def ranks(weights: Array) -> Array:
        upto = weights[:, order].cumsum(1)[:, ends]
        before = np.concatenate([np.zeros((len(weights), 1)), upto[:, :-1]], axis=1)
        return ((before + upto + 1) / 2)[:, group[back]]

    return ranks


def _tied_order(values: Array) -> tuple[Array, Array, Array]:
    """Ascending order of `values` (n,), the last place of each distinct value in it, and which distinct value each place holds."""
    order = np.argsort(values, kind="stable")
    changes = np.flatnonzero(np.diff(values[order]))
    ends = np.append(changes, len(values) - 1)
    return order, ends, np.searchsorted(ends, np.arange(len(values)))


def _average_precision(part: Part) -> Measure:
    """Σ (R_k − R_{k−1})·P_k over distinct scores from high to low, as scikit-learn has it."""
    order, ends, _ = _tied_order(-part.arrays["scores"].astype(np.float64))
    right = (part.arrays["gold"][order] == 1).astype(np.float64)

    def measure(weights: Array) -> Array:
        sorted_ = weights[:, order]
        seen, hits = sorted_.cumsum(1)[:, ends], (sorted_ * right).cumsum(1)[:, ends]
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        total = hits[:, -1]
        gained = np.diff(hits, axis=1, prepend=0.0)
        return np.divide((gained * precision).sum(1), total, out=np.zeros(len(weights)), where=total > 0)

    return measure


def _macro_f1(part: Part) -> Measure:
    """Mean over the experiments of the mean F1 over the labels that were drawn or predicted, 2·hits / (predicted + true), as scikit-learn has it."""
    gold, experiments = part.arrays["gold"], part.arrays["predicted"]
    labels = np.arange(max(gold.max(), experiments.max()) + 1)
    true = (gold[:, None] == labels).astype(np.float64)
    said = [(predicted[:, None] == labels).astype(np.float64) for predicted in experiments]

    def measure(weights: Array) -> Array:
        values, expected = np.zeros(len(weights)), weights @ true
        for predicted in said:
            both = weights @ predicted + expected
            f1 = np.divide(2 * (weights @ (predicted * true)), both, out=np.zeros_like(both), where=both > 0)
            values += f1.sum(1) / (both > 0).sum(1)
        return values / len(said)

    return measure


def _v_measure(part: Part) -> Measure:
    """Mean over the draws of 2·I(L; C) / (H(L) + H(C)), the harmonic mean of homogeneity and completeness. Clusterings are kept, documents resampled."""
    from scipy.sparse import csr_array

    tables = []
    for index, labels, clusters in zip(
        *(part.arrays[name] for name in ("index", "labels", "clusters")), strict=True
    ):
        cells, cell = np.unique(np.stack([labels, clusters]), axis=1, return_inverse=True)
        counts = csr_array((np.ones(len(index)), (cell.ravel(), index)), shape=(cells.shape[1], part.count))
        sides = [
            csr_array((np.ones(cells.shape[1]), (side - side.min(), np.arange(cells.shape[1]))))
            for side in cells
        ]
        tables.append((counts, *sides))

    def measure(weights: Array) -> Array:
        values = np.zeros(len(weights))
        for counts, by_label, by_cluster in tables:
            joint = counts @ weights.T  # (cells, b)
            label, cluster, both = (
                _entropy(found) for found in (by_label @ joint, by_cluster @ joint, joint)
            )
            apart = label + cluster
            # one label and one cluster agree wholly, as scikit-learn has it
            values += np.divide(2 * (apart - both), apart, out=np.ones_like(apart), where=apart > 1e-12)
        return values / len(tables)

    return measure


def _entropy(counts: Array) -> Array:
    """Entropy of each column of counts (m, b)."""
    shares = counts / counts.sum(0)
    return -(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(0)


KINDS: dict[str, Callable[[Part], Measure]] = {
    "mean": _mean,
    "pearson": _pearson,
    "spearman": _spearman,
    "average-precision": _average_precision,
    "macro-f1": _macro_f1,
    "v-measure": _v_measure,
}
