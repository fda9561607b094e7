"""Intervals of scores and differences, p-values and ranks, from resampled examples, repeated draws and seeds.

`scipy.stats.bootstrap` is not used: it neither resamples several models together, nor centres the draws on
the score, nor adds the variance over seeds, and its draws would change the published numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

    @property
    def significant(self) -> bool | None:
        """Whether the adjusted p is below α; None when it is unknown."""
        return None if self.adjusted is None else self.adjusted < self.alpha


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


def estimate(draws: np.ndarray | None, by_seed: np.ndarray, alpha: float = 0.05) -> Difference:
    """The mean of the differences `by_seed` (s,), one per pair of runs, with interval and two-sided p-value.

    `draws` (b,) is that mean on resamples of the examples. With one seed, interval and p-value (twice the
    smaller tail) are those of the draws around the difference. With several, the variance over resamples and
    that over seeds, s²/S, are added, and the interval is Student's t with the degrees of freedom of Welch and
    Satterthwaite: a percentile interval over three seeds would be far too narrow.
    """
    value, count = float(by_seed.mean()), len(by_seed)
    if draws is None:
        return Difference(value, alpha=alpha)
    if count == 1:
        draws = centred(draws, value)
        low, high = percentile_interval(draws, alpha)
        tail = 1 + min(int((draws <= 0).sum()), int((draws >= 0).sum()))
        return Difference(value, low, high, min(1.0, 2 * tail / (len(draws) + 1)), alpha=alpha)
    from scipy.stats import t

    examples, seeds = float(draws.var(ddof=1)), float(by_seed.var(ddof=1)) / count
    error = (examples + seeds) ** 0.5
    if error == 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, alpha=alpha)
    freedom = (count - 1) * ((examples + seeds) / seeds) ** 2 if seeds > 0 else np.inf
    half = float(t.ppf(1 - alpha / 2, freedom)) * error
    p = float(2 * t.sf(abs(value) / error, freedom))
    return Difference(value, value - half, value + half, p, alpha=alpha)


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
