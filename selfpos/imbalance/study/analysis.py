"""Looking at a study's records: choosing learning rates, and intervals over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfpos.errors import SelfposError
from selfpos.imbalance.study.profiles import place_of

Record = dict[str, Any]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % confidence interval (Student's t); infinite for a single value."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f}" if self.n < 2 else f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % t interval of `values`."""
    from scipy.stats import t

    found = np.array(list(values), dtype=np.float64)
    if len(found) < 2:
        return Interval(float(found.mean()) if len(found) else float("nan"), -np.inf, np.inf, len(found))
    half = float(t.ppf(0.975, len(found) - 1)) * float(found.std(ddof=1)) / len(found) ** 0.5
    return Interval(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half, len(found))


def p_value(values: Iterable[float], at: float) -> float:
    """Two-sided p of Student's t test that the mean of `values` is `at`: below 0.05 where `interval` leaves
    `at` out; 1 for a single value.
    """
    from scipy.stats import t

    found = np.array(list(values), dtype=np.float64)
    gap = abs(float(found.mean()) - at) if len(found) > 1 else 0.0
    spread = float(found.std(ddof=1)) / len(found) ** 0.5 if gap else 0.0
    return (0.0 if gap else 1.0) if spread == 0 else float(2 * t.sf(gap / spread, len(found) - 1))


def paired_bootstrap(differences: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> Interval:
    """Mean of paired differences with a 95 % interval from resamples of the pairs; infinite for a single
    pair.

    The percentile interval of n pairs is too narrow as √((n − 1)/n) of a normal interval is beside Student's
    t, and covers 83 % instead of 95 % for five; its arms are widened by that ratio (after Hesterberg 2015,
    arXiv 1411.5279).
    """
    from scipy.stats import norm, t

    found = np.array(differences, dtype=np.float64)
    mean, n = float(found.mean()), len(found)
    if n < 2:
        return Interval(mean, -np.inf, np.inf, n)
    means = found[np.random.default_rng(seed).integers(n, size=(draws, n))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    widened = (n / (n - 1)) ** 0.5 * float(t.ppf(0.975, n - 1) / norm.ppf(0.975))
    return Interval(mean, mean - widened * (mean - float(low)), mean + widened * (float(high) - mean), n)


class Study:
    """A study's records by cell, one value per seed, after the choice of learning rates.

    select "validation": in every cell the rate with the best mean validation AUC. "test": as the paper did
    for CIFAR-10, the single best run of a cell by test AUC; it leaves one optimistic value per cell and no
    interval. Raises SelfposError where there is nothing to choose on, and where one point of the grid was run
    with different minorities, whose records are not to be joined.
    """

    def __init__(self, records: Iterable[Record], select: str = "validation") -> None:
        cells: dict[tuple, dict[float, list[Record]]] = defaultdict(lambda: defaultdict(list))
        minorities: dict[tuple, str] = {}
        for record in records:
            cell = _cell(record)
            cells[cell][record["rate"]].append(record)
            if (first := minorities.setdefault(cell[:3], record["minority_rule"])) != record["minority_rule"]:
                raise SelfposError(
                    f"{place_of(*cell[:3])} was run with the minorities {first} and "
                    f"{record['minority_rule']}, which are two studies; give each its own results file"
                )
        self.select = select
        self.cells: dict[tuple, dict[int, Record]] = {
            cell: self._chosen(cell, rates) for cell, rates in cells.items()
        }

    def _chosen(self, cell: tuple, rates: Mapping[float, list[Record]]) -> dict[int, Record]:
        if len(rates) > 1 and self.select == "test":
            return {
                0: max(
                    (record for records in rates.values() for record in records),
                    key=lambda record: record["auc"],
                )
            }
        best, *others = rates
        if others:
            if any(record["validation_auc"] is None for records in rates.values() for record in records):
                raise SelfposError(
                    f"{place_of(*cell[:3])} {cell[3]} was run at {len(rates)} learning rates without "
                    "validation images to choose one on; select on test"
                )
            best = max(rates, key=lambda rate: np.mean([record["validation_auc"] for record in rates[rate]]))
        return {record["seed"]: record for record in rates[best]}

    def axis(self, profile: str, name: str) -> list[float]:
        """The ratios ("rho") or minority shares ("mu") that cells of `profile` were run at, ascending."""
        place = {"rho": 1, "mu": 2}[name]
        return sorted({cell[place] for cell in self.cells if cell[0] == profile and cell[place] is not None})

    def methods(self) -> list[str]:
        return sorted({cell[3] for cell in self.cells})

    def get(
        self, profile: str, rho: float, mu: float | None, method: str, rule: str = "plain", field: str = "auc"
    ) -> dict[int, float]:
        """100 × `field` by seed; empty when the cell was not run."""
        return {
            seed: 100 * record[field]
            for seed, record in self.cells.get((profile, rho, mu, method, rule), {}).items()
        }

    def seeds_of(
        self, profile: str, rho: float, mu: float | None, method: str, rule: str = "plain"
    ) -> dict[int, Record]:
        return self.cells.get((profile, rho, mu, method, rule), {})


def _cell(record: Record) -> tuple:
    return (record["profile"], record["rho"], record["mu"], record["method"], record["rule"])


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """first − second, seed by seed, for the seeds both have."""
    return {seed: first[seed] - second[seed] for seed in first if seed in second}


def average(parts: Iterable[Mapping[int, float]]) -> dict[int, float]:
    """The mean over cells, seed by seed, for the seeds all of them have."""
    found = [part for part in parts if part]
    if not found:
        return {}
    shared = set.intersection(*(set(part) for part in found))
    return {seed: float(np.mean([part[seed] for part in found])) for seed in sorted(shared)}
