"""What a model got right, example by example, kept beside MTEB's result files, and main scores of resamples.

A result file of MTEB holds one number per task. An interval of that number, or of a difference between two
models, needs the pairs, queries or texts behind it.

Each measure takes weights (b, n), how often each example was drawn in each of b resamples, and returns b
scores. Resamples are not gathered and ranked one by one: ranks, precisions and contingency tables of weighted
examples follow from one order of the examples and cumulative sums, so thousands of resamples of thousands of
pairs take a second.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from selfpos.storage.atomic import write_bytes

Array = np.ndarray
Measure = Callable[[Array], Array]
CELLS = 2_000_000  # numbers in memory at once, per array

FOLDER = "examples"  # beside MTEB's `results`


@dataclass(frozen=True)
class Examples:
    """The results of one model on the examples of one split and subset of a task.

    `kind` says how the task's main score follows from the arrays:

    - `mean`: the score is the mean of "values" (n,): a query's nDCG, or the share of experiments that
      classified a text correctly
    - `spearman`, `pearson`: the correlation of the model's "scores" (n,) of each pair with "gold" (n,)
    - `average-precision`: of "scores" (n,), higher for likelier pairs, with "gold" (n,) of 0 and 1
    - `macro-f1`: mean over experiments of the mean F1 over labels, of "predicted" (e, n) against "gold" (n,),
      both as label numbers
    - `v-measure`: mean over draws of the V-measure of "clusters" (d, k) against "labels" (d, k), drawn from
      documents "index" (d, k) of n

    `key` identifies the set of examples: only results with equal keys can be paired.
    """

    split: str
    subset: str
    kind: str
    count: int
    key: str
    arrays: Mapping[str, np.ndarray] = field(repr=False)


def examples_file(result: Path) -> Path:
    """The examples of MTEB's file `result`: `examples/<model>/<revision>/<task>.npz` beside `results`."""
    root, model, revision = result.parents[3], result.parents[1].name, result.parent.name
    return root / FOLDER / model / revision / f"{result.stem}.npz"


def write_examples(file: Path, parts: Sequence[Examples], revision: str) -> None:
    """Write `parts`, on data of `revision`, to `file`; its other parts on that data stay."""
    fresh = {(part.split, part.subset) for part in parts}
    kept = [part for part in read_examples(file, revision) if (part.split, part.subset) not in fresh]
    heads: list[dict[str, object]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, part in enumerate([*kept, *parts]):
        heads.append({name: value for name, value in vars(part).items() if name != "arrays"})
        arrays |= {f"{number}.{name}": array for name, array in part.arrays.items()}
    stream = io.BytesIO()
    head = np.frombuffer(json.dumps({"revision": revision, "parts": heads}).encode(), np.uint8)
    np.savez_compressed(stream, allow_pickle=False, head=head, **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, stream.getvalue())


def read_examples(file: Path, revision: str) -> list[Examples]:
    """The parts in `file`; empty when the file is missing, damaged, or of other data than `revision`."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            head = json.loads(stored["head"].tobytes())
            if head["revision"] != revision:
                return []
            arrays: list[dict[str, np.ndarray]] = [{} for _ in head["parts"]]
            for stored_name in stored.files:
                number, _, name = stored_name.partition(".")
                if name:
                    arrays[int(number)][name] = stored[stored_name]
            return [Examples(**fields, arrays=arrays[i]) for i, fields in enumerate(head["parts"])]
    except (OSError, ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile):
        return []


def measure_of(part: Examples) -> Measure:
    """The main score of `part` as a function of weights (b, n) whose rows sum to n."""
    return KINDS[part.kind](part)


def score_of(part: Examples) -> float:
    """The main score of `part`, every example counted once."""
    return float(measure_of(part)(np.ones((1, part.count)))[0])


def resamples(parts: list[Examples], draws: int, seed: int) -> Array:
    """Scores (draws, len(parts)) on resamples drawn with replacement, the same for all `parts`."""
    (count,) = {part.count for part in parts}
    measures = [measure_of(part) for part in parts]
    rng = np.random.default_rng(seed)
    scores = np.empty((draws, len(parts)))
    step = max(1, CELLS // count)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        chosen = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
        for column, measure in enumerate(measures):
            scores[start : start + rows, column] = measure(weights)
    return scores


def contributions(part: Examples, blocks: int) -> Array:
    """What each example adds to the score: the values of a mean, else the pseudo-values of the jackknife,
    whose mean is the score or near it. With more examples than `blocks`, of that many groups of examples.
    """
    if part.kind == "mean":
        return part.arrays["values"].astype(np.float64)
    count, measure = min(part.count, blocks), measure_of(part)
    group = np.arange(part.count) % count
    without = np.empty(count)
    step = max(1, CELLS // part.count)
    for start in range(0, count, step):
        left_out = np.arange(start, min(start + step, count))
        without[left_out] = measure((group[None, :] != left_out[:, None]).astype(np.float64))
    return count * score_of(part) - (count - 1) * without


def _divide(numerator: Array, denominator: Array, otherwise: float = 0.0, above: float = 0.0) -> Array:
    """`numerator / denominator`, and `otherwise` where the denominator is not greater than `above`."""
    out = np.full(numerator.shape, otherwise)
    return np.divide(numerator, denominator, out=out, where=denominator > above)


def _mean(part: Examples) -> Measure:
    values = part.arrays["values"].astype(np.float64)
    return lambda weights: weights @ values / weights.sum(1)


def _pearson(part: Examples) -> Measure:
    scores, gold = (part.arrays[name].astype(np.float64) for name in ("scores", "gold"))
    return lambda weights: _correlation(weights, scores - scores.mean(), gold - gold.mean())


def _spearman(part: Examples) -> Measure:
    scores, gold = (_ranking(part.arrays[name]) for name in ("scores", "gold"))
    return lambda weights: _correlation(weights, scores(weights), gold(weights))


def _correlation(weights: Array, x: Array, y: Array) -> Array:
    """Weighted correlation of each row; 0 where x or y does not vary."""
    total = weights.sum(1, keepdims=True)
    x = x - (weights * x).sum(1, keepdims=True) / total
    y = y - (weights * y).sum(1, keepdims=True) / total
    weighted = weights * x
    squares = (weighted * x).sum(1) * (weights * y * y).sum(1)
    return np.divide((weighted * y).sum(1), np.sqrt(squares), out=np.zeros(len(weights)), where=squares > 0)


def _ranking(values: Array) -> Measure:
    """Average ranks (b, n) of `values` in each resample; the copies of an example are ties."""
    order, ends, group = _tied_order(values)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))

    def ranks(weights: Array) -> Array:
        upto = weights[:, order].cumsum(1)[:, ends]
        before = np.concatenate([np.zeros((len(weights), 1)), upto[:, :-1]], axis=1)
        return ((before + upto + 1) / 2)[:, group[back]]

    return ranks


def _tied_order(values: Array) -> tuple[Array, Array, Array]:
    """Ascending order of `values` (n,), the last position of each distinct value, and each one's value."""
    order = np.argsort(values, kind="stable")
    changes = np.flatnonzero(np.diff(values[order]))
    ends = np.append(changes, len(values) - 1)
    return order, ends, np.searchsorted(ends, np.arange(len(values)))


def _average_precision(part: Examples) -> Measure:
    """Σ (R_k − R_{k−1})·P_k over distinct scores from high to low, as scikit-learn defines it."""
    order, ends, _ = _tied_order(-part.arrays["scores"].astype(np.float64))
    right = (part.arrays["gold"][order] == 1).astype(np.float64)

    def measure(weights: Array) -> Array:
        in_order = weights[:, order]
        retrieved, hits = in_order.cumsum(1)[:, ends], (in_order * right).cumsum(1)[:, ends]
        gained = np.diff(hits, axis=1, prepend=0.0)
        return _divide((gained * _divide(hits, retrieved)).sum(1), hits[:, -1])

    return measure


def _macro_f1(part: Examples) -> Measure:
    """Mean over experiments of the mean F1, 2·hits / (predicted + true), over labels drawn or predicted."""
    gold, experiments = part.arrays["gold"], part.arrays["predicted"]
    labels = np.arange(max(gold.max(), experiments.max()) + 1)
    true = (gold[:, None] == labels).astype(np.float64)
    one_hot = [(predicted[:, None] == labels).astype(np.float64) for predicted in experiments]

    def measure(weights: Array) -> Array:
        values, expected = np.zeros(len(weights)), weights @ true
        for predicted in one_hot:
            sizes = weights @ predicted + expected
            f1 = _divide(2 * (weights @ (predicted * true)), sizes)
            values += f1.sum(1) / (sizes > 0).sum(1)
        return values / len(one_hot)

    return measure


def _v_measure(part: Examples) -> Measure:
    """Mean over the draws of 2·I(L; C) / (H(L) + H(C)), the harmonic mean of homogeneity and completeness.

    The clusterings stay as they are; their documents are resampled.
    """
    from scipy.sparse import csr_array

    tables = []
    arrays = (part.arrays[name] for name in ("index", "labels", "clusters"))
    for index, labels, clusters in zip(*arrays, strict=True):
        cells, cell = np.unique(np.stack([labels, clusters]), axis=1, return_inverse=True)
        size = cells.shape[1]
        counts = csr_array((np.ones(len(index)), (cell.ravel(), index)), shape=(size, part.count))
        by_label, by_cluster = (
            csr_array((np.ones(size), (side - side.min(), np.arange(size)))) for side in cells
        )
        tables.append((counts, by_label, by_cluster))

    def measure(weights: Array) -> Array:
        values = np.zeros(len(weights))
        for counts, by_label, by_cluster in tables:
            joint = counts @ weights.T  # (cells, b)
            apart = _entropy(by_label @ joint) + _entropy(by_cluster @ joint)
            # A single label and a single cluster agree fully: 1, as in scikit-learn.
            values += _divide(2 * (apart - _entropy(joint)), apart, otherwise=1.0, above=1e-12)
        return values / len(tables)

    return measure


def _entropy(counts: Array) -> Array:
    """Entropy of each column of counts (m, b)."""
    shares = counts / counts.sum(0)
    return -(shares * np.log(shares, out=np.zeros_like(shares), where=shares > 0)).sum(0)


KINDS: dict[str, Callable[[Examples], Measure]] = {
    "mean": _mean,
    "pearson": _pearson,
    "spearman": _spearman,
    "average-precision": _average_precision,
    "macro-f1": _macro_f1,
    "v-measure": _v_measure,
}
