"""Ranks over tasks, and p-values of many comparisons at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def borda_ranks(scores: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Rank of each model (1 is best) by its Borda count over tasks: for each task, the number of models it beats, ties counting half.

    As MTEB's leaderboard ranks (Colombo et al., "What are the best systems?", NeurIPS 2022). `scores`: model → one score per task.
    """
    from scipy.stats import rankdata

    if not scores:
        return {}
    points = rankdata(np.array(list(scores.values()), dtype=np.float64), axis=0).sum(1)
    return {model: int(rank) for model, rank in zip(scores, rankdata(-points, method="min"), strict=True)}


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979).

    Those below α may all be called significant, with a chance of at most α that any one of them is wrongly.
    """
    order = np.argsort(p)
    steps = np.minimum(1.0, np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()
