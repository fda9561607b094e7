"""Intervals of scores and differences, p-values and ranks, from resampled examples, repeated draws and seeds.

`scipy.stats.bootstrap` is not used: it neither resamples several models together, nor centres the draws on
the score, nor adds the variance over seeds, and its draws would change the published numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Model minus baseline, in units of the score.

    `low`, `high` and `p` are None without examples. `adjusted` is p after Holm's correction.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None
    alpha: float = 0.05

    def __neg__(self) -> Difference:
        """Baseline minus model."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, value=-self.value, low=low, high=high)

    @property
    def significant(self) -> bool | None:
        """Whether the adjusted p is below α; None when it is unknown."""
        return None if self.adjusted is None else self.adjusted < self.alpha

    @property
    def before_correction(self) -> bool:
        """Whether p is below α, and only the correction makes the difference insignificant."""
        return self.significant is False and self.p is not None and self.p < self.alpha


def percentile_interval(draws: np.ndarray, alpha: float = 0.05) -> tuple[float, float]:
    """The 1 − α percentile interval of resampled scores (b,)."""
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def centred(draws: np.ndarray, value: float) -> np.ndarray:
    """`draws` moved to have the mean `value`.

    A resample holds some examples twice, which alone raises measures such as the V-measure.
    """
    return draws - draws.mean() + value


def student_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's t interval (95 %) of the mean of `values`; None for fewer than two."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    array = np.array(values, dtype=np.float64)
    half = float(t.ppf(0.975, len(array) - 1)) * float(array.std(ddof=1)) / len(array) ** 0.5
    return float(array.mean()) - half, float(array.mean()) + half


EXACT = 14
"""Differences whose patterns of signs are all tried."""
LARGEST = 400
"""Differences whose signs are drawn one by one."""


def sign_flip(contributions: np.ndarray, draws: int, seed: int) -> float:
    """The two-sided p-value of a sum of differences (n,), under the hypothesis that each could as well have
    the other sign.

    Exact up to `EXACT` differences other than 0, and where all are of one size: then it is McNemar's test.
    For others `draws` patterns of signs are drawn; beyond the `LARGEST` differences the sum of the rest is
    normal.
    """
    from scipy.stats import binom, norm

    sizes = np.sort(np.abs(contributions))[::-1]
    sizes = sizes[sizes > 1e-9 * (sizes[0] if len(sizes) else 0)]
    count, total = len(sizes), abs(float(contributions.sum()))
    if not count:
        return 1.0
    if sizes[-1] > (1 - 1e-6) * sizes[0]:
        fewer = round((count - total / sizes[0]) / 2)
        return float(min(1.0, 2 * binom.cdf(fewer, count, 0.5)))
    rng = np.random.default_rng(seed)
    rest = 0.0
    if count <= EXACT:
        patterns = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        patterns = rng.integers(0, 2, (draws, min(count, LARGEST)), dtype=np.int8)
        rest = float(np.sqrt((sizes[LARGEST:] ** 2).sum()))
    sums = (2.0 * patterns - 1.0) @ sizes[: patterns.shape[1]]
    reached = total * (1 - 1e-9)
    if rest:
        return float((norm.sf((reached - sums) / rest) + norm.cdf((-reached - sums) / rest)).mean())
    hits = int((np.abs(sums) >= reached).sum())
    return hits / len(sums) if count <= EXACT else (hits + 1) / (len(sums) + 1)


def estimate(draws: np.ndarray, by_seed: np.ndarray, p_examples: float, alpha: float = 0.05) -> Difference:
    """The mean of the differences `by_seed` (s,), one per pair of runs, with interval and two-sided p-value.

    `draws` (b,) is that mean on resamples of the examples, `p_examples` the p-value of a test over the
    examples (`sign_flip`). With one seed the interval is that of the draws around the difference. With
    several, the variance over resamples and that over seeds, s²/S, are added, and interval and p are
    Student's t with the degrees of freedom of Welch and Satterthwaite: a percentile interval over three
    seeds would be far too narrow. The larger p counts, and an interval beside a p of α or more has 0 in it.
    """
    value, p = float(by_seed.mean()), p_examples
    if len(by_seed) == 1:
        low, high = percentile_interval(centred(draws, value), alpha)
    else:
        low, high, p_seeds = _over_seeds(draws, by_seed, alpha)
        p = max(p_seeds, p_examples)
    if p >= alpha:
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(value, low, high, p, alpha=alpha)


def _over_seeds(draws: np.ndarray, by_seed: np.ndarray, alpha: float) -> tuple[float, float, float]:
    """Interval and p of Student's t."""
    from scipy.stats import t

    value, count = float(by_seed.mean()), len(by_seed)
    examples, seeds = float(draws.var(ddof=1)), float(by_seed.var(ddof=1)) / count
    error = (examples + seeds) ** 0.5
    if error == 0:
        return value, value, 1.0 if value == 0 else 0.0
    freedom = (count - 1) * ((examples + seeds) / seeds) ** 2 if seeds > 0 else np.inf
    half = float(t.ppf(1 - alpha / 2, freedom)) * error
    return value - half, value + half, float(2 * t.sf(abs(value) / error, freedom))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979).

    All values below α can be called significant; the chance that any of them is wrong is at most α.
    """
    order = np.argsort(p)
    steps = np.minimum(1.0, np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def borda_ranks(scores: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Rank of each model (1 is best) by its Borda count over tasks: the models it beats, ties counting half.

    MTEB's leaderboard ranks like this (Colombo et al., "What are the best systems?", NeurIPS 2022).
    """
    from scipy.stats import rankdata

    if not scores:
        return {}
    points = rankdata(np.array(list(scores.values()), dtype=np.float64), axis=0).sum(1)
    return {model: int(rank) for model, rank in zip(scores, rankdata(-points, method="min"), strict=True)}
