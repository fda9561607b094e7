"""A study's records by cell, intervals over seeds, and the order of the methods in two studies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import kendalltau, norm, t

from selfpos.errors import SelfposError
from selfpos.imbalance.study.sampling import setting_name
from selfpos.scores.intervals import percentile_interval, student_interval

Record = dict[str, Any]
Values = Mapping[int, float]  # by seed


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % confidence interval; infinite for a single value."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" if self.n < 2 else f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval (Student's t) of `values`; the mean of none is not a number."""
    sample = list(values)
    mean = float(np.mean(sample)) if sample else float("nan")
    return Interval(mean, *(student_interval(sample) or (-np.inf, np.inf)), len(sample))


def p_value(values: Iterable[float], mean: float) -> float:
    """Two-sided p of Student's t test that `values` have this mean; 1 for a single value.

    It is below 0.05 where `interval` does not include `mean`.
    """
    sample = np.array(list(values), dtype=np.float64)
    gap = abs(float(sample.mean()) - mean) if len(sample) > 1 else 0.0
    if gap == 0:
        return 1.0
    error = float(sample.std(ddof=1)) / len(sample) ** 0.5
    return float(2 * t.sf(gap / error, len(sample) - 1)) if error else 0.0


def paired_bootstrap(differences: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of paired differences with a 95 % interval from resamples of the pairs.

    The percentile interval of n pairs is too narrow: by √((n − 1)/n), and as a normal interval is beside
    Student's t. For five pairs it covers 83 %. Its arms are widened by that ratio (after Hesterberg 2015,
    arXiv 1411.5279).
    """
    sample = np.array(differences, dtype=np.float64)
    mean, n = float(sample.mean()), len(sample)
    if n < 2:
        return Interval(mean, -np.inf, np.inf, n)
    means = sample[np.random.default_rng(seed).integers(n, size=(draws, n))].mean(axis=1)
    low, high = percentile_interval(means)
    widened = (n / (n - 1)) ** 0.5 * float(t.ppf(0.975, n - 1) / norm.ppf(0.975))
    return Interval(mean, mean - widened * (mean - low), mean + widened * (high - mean), n)


class Study:
    """A study's records by cell, one value per seed, after the choice of learning rates.

    A cell is profile, ρ, μ, method and decision rule. select "validation": in every cell the rate with the
    best mean validation AUC. "test": the best run of a cell by test AUC, as the paper did for CIFAR-10: one
    optimistic value per cell, without an interval.
    """

    def __init__(self, records: Iterable[Record], select: str = "validation") -> None:
        cells: dict[tuple, dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            cell = tuple(record[field] for field in ("profile", "rho", "mu", "method", "rule"))
            cells[cell][record["rate"]].append(record)
        self.select = select
        self.cells = {cell: self._chosen(cell, rates) for cell, rates in cells.items()}

    def _chosen(self, cell: tuple, rates: Mapping[float, list[Record]]) -> dict[int, Record]:
        """The records of the chosen learning rate, by seed."""
        everything = [record for records in rates.values() for record in records]
        if len(rates) == 1:
            return {record["seed"]: record for record in everything}
        if self.select == "test":
            return {0: max(everything, key=lambda record: record["auc"])}
        if any(record["validation_auc"] is None for record in everything):
            raise SelfposError(
                f"{setting_name(*cell[:3])} {cell[3]} was run at {len(rates)} learning rates without "
                "validation images to choose one on; select on test"
            )
        best = max(rates.values(), key=lambda records: np.mean([r["validation_auc"] for r in records]))
        return {record["seed"]: record for record in best}

    def axis(self, profile: str, name: str) -> list[float]:
        """The ratios ("rho") or minority shares ("mu") that cells of `profile` were run at, ascending."""
        index = {"rho": 1, "mu": 2}[name]
        return sorted({cell[index] for cell in self.cells if cell[0] == profile and cell[index] is not None})

    def steps(self) -> list[Step]:
        """All step imbalances that the baseline was run at."""
        cells = [cell for cell in self.cells if (cell[0], *cell[3:]) == ("step", "baseline", "plain")]
        return [Step(self, rho, mu) for rho, mu in sorted(cell[1:3] for cell in cells)]

    def methods(self) -> list[str]:
        return sorted({cell[3] for cell in self.cells})

    def get(
        self, profile: str, rho: float, mu: float | None, method: str, rule: str = "plain", field: str = "auc"
    ) -> dict[int, float]:
        """100 × `field` by seed; empty when the cell was not run."""
        records = self.cells.get((profile, rho, mu, method, rule), {})
        return {seed: 100 * record[field] for seed, record in records.items()}


@dataclass(frozen=True)
class Step:
    study: Study
    rho: float
    mu: float

    def __str__(self) -> str:
        return f"ρ={self.rho:g} μ={self.mu:g}"

    def get(self, method: str, rule: str = "plain", field: str = "auc") -> dict[int, float]:
        """100 × `field` by seed; empty when the method was not run."""
        return self.study.get("step", self.rho, self.mu, method, rule, field)


def difference(first: Values, second: Values) -> dict[int, float]:
    """first − second, seed by seed, for the seeds both have."""
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def average(parts: Iterable[Values]) -> dict[int, float]:
    """The mean over cells, seed by seed, for the seeds that all non-empty ones have."""
    present = [part for part in parts if part]
    return {seed: float(np.mean([part[seed] for part in present])) for seed in shared_seeds(present)}


def shared_seeds(parts: Iterable[Values]) -> list[int]:
    """The seeds that all of `parts` have, ascending."""
    sets = [set(part) for part in parts]
    return sorted(set.intersection(*sets)) if sets else []


def common_means(by_method: Mapping[str, Values], methods: Sequence[str]) -> dict[str, float]:
    """The mean of each of `methods` over the seeds that all of them have; empty without such seeds."""
    seeds = shared_seeds(by_method[method] for method in methods)
    if not seeds:
        return {}
    return {method: float(np.mean([by_method[method][seed] for seed in seeds])) for method in methods}


@dataclass(frozen=True)
class Ordering:
    """Kendall's τ-b between the orders of the methods by mean AUC in two studies, for one imbalance.

    A pair is reversed when its paired difference is significant in both studies, with opposite signs.
    """

    setting: str
    methods: int
    tau: float
    reversed_pairs: list[str]


def compare_orderings(first: Study, second: Study) -> list[Ordering]:
    """An `Ordering` for every imbalance at which both studies ran two methods or more at common seeds."""
    shared: dict[tuple[str, float, float | None], list[str]] = defaultdict(list)
    for profile, rho, mu, method, rule in first.cells:
        if rule == "plain" and second.get(profile, rho, mu, method):
            shared[profile, rho, mu].append(method)
    orderings = []
    for setting, methods in shared.items():
        aucs = [{name: study.get(*setting, name) for name in methods} for study in (first, second)]
        means = [list(common_means(by_method, methods).values()) for by_method in aucs]
        if len(methods) > 1 and all(means):
            pairs = [" / ".join(pair) for pair in combinations(methods, 2) if _is_reversed(*pair, *aucs)]
            orderings.append(Ordering(setting_name(*setting), len(methods), kendall(*means), pairs))
    return orderings


def _is_reversed(method: str, other_method: str, first: dict[str, dict], second: dict[str, dict]) -> bool:
    a, b = (interval(difference(aucs[method], aucs[other_method]).values()) for aucs in (first, second))
    return (a.low > 0 and b.high < 0) or (b.low > 0 and a.high < 0)


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    return float(kendalltau(first, second).statistic)
