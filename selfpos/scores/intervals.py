"""How sure a difference is, from resamples of the examples and from repetitions with other seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Model minus baseline, in units of the score; `low`, `high` and `p` None where no examples were kept. `adjusted` is p after Holm's correction."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None
    alpha: float = 0.05

    @property
    def significant(self) -> bool | None:
        """None where it cannot be told."""
        return None if self.adjusted is None else self.adjusted < self.alpha


def estimate(draws: np.ndarray | None, by_seed: np.ndarray, alpha: float = 0.05) -> Difference:
    """The mean of the differences `by_seed` (s,), one for each pair of runs, with its 1 − α interval and two-sided p-value.

    `draws` (b,) are that mean on resamples of the examples. With one seed: the percentile interval, and twice the smaller tail, of the draws moved
    to have the difference for their mean: a resample holds examples twice, which by itself raises measures such as the V-measure. With several:
    the variance over resamples and that over seeds, s²/S, are added, and the interval is Student's t with Welch's and Satterthwaite's degrees of
    freedom, which the seeds alone limit: a percentile interval over three seeds would be far too narrow.
    """
    value, count = float(by_seed.mean()), len(by_seed)
    if draws is None:
        return Difference(value, alpha=alpha)
    if count == 1:
        draws = draws - draws.mean() + value
        low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
        tail = 1 + min(int((draws <= 0).sum()), int((draws >= 0).sum()))
        return Difference(value, float(low), float(high), min(1.0, 2 * tail / (len(draws) + 1)), alpha=alpha)
    from scipy.stats import t

    examples, seeds = float(draws.var(ddof=1)), float(by_seed.var(ddof=1)) / count
    error = (examples + seeds) ** 0.5
    if error == 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0, alpha=alpha)
    freedom = (count - 1) * ((examples + seeds) / seeds) ** 2 if seeds > 0 else np.inf
    half = float(t.ppf(1 - alpha / 2, freedom)) * error
    return Difference(
        value, value - half, value + half, float(2 * t.sf(abs(value) / error, freedom)), alpha=alpha
    )
