"""Does another length of training put the methods in another order? Two results files, cell by cell."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from selfpos.imbalance.study.analysis import Study, difference, interval
from selfpos.imbalance.study.profiles import place_of


@dataclass(frozen=True)
class Ordering:
    """One imbalance: Kendall's τ-b between the two orders of its methods by mean AUC, over the seeds that a
    study ran all of them with, and the pairs that are reversed.

    A pair counts as reversed when its paired difference is significant (95 % over seeds) in both studies,
    with opposite signs.
    """

    setting: str
    methods: int
    tau: float
    reversed_pairs: list[str]


def compare_orderings(first: Study, second: Study) -> list[Ordering]:
    """An `Ordering` for every imbalance at which both studies ran two methods or more with a seed in common,
    in the order of the first.
    """
    shared: dict[tuple, list[str]] = defaultdict(list)
    for profile, rho, mu, method, rule in first.cells:
        if rule == "plain" and second.seeds_of(profile, rho, mu, method):
            shared[profile, rho, mu].append(method)
    found = []
    for (profile, rho, mu), methods in shared.items():
        if len(methods) > 1:
            values = [
                {method: study.get(profile, rho, mu, method) for method in methods}
                for study in (first, second)
            ]
            seeds = [set.intersection(*(set(own) for own in value.values())) for value in values]
            if not all(seeds):
                continue
            flipped = []
            for one, other in combinations(methods, 2):
                gaps = [interval(difference(value[one], value[other]).values()) for value in values]
                if any((a.low > 0 and b.high < 0) for a, b in (gaps, gaps[::-1])):
                    flipped.append(f"{one} / {other}")
            means = [
                [float(np.mean([value[method][seed] for seed in sorted(own)])) for method in methods]
                for value, own in zip(values, seeds, strict=True)
            ]
            found.append(Ordering(place_of(profile, rho, mu), len(methods), _kendall(*means), flipped))
    return found


def _kendall(first: list[float], second: list[float]) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)
