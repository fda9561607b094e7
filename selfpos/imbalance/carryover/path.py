"""The path in weight space from the baseline to ROS, against sampling to a partial ratio.

Can an interpolation replace a search over ratios? α on the path, and the ratio, are chosen on validation.
"""

from __future__ import annotations

import numpy as np

from selfpos.imbalance.carryover import comparison
from selfpos.imbalance.carryover.comparison import Bench, Measured, Outcome, compared

MARGIN = 0.25  # points of AUC
ALPHAS = [round(0.1 * step, 1) for step in range(11)]


def iterations(length: int) -> int:
    """Iterations that a seed takes in all, where the recipe's training takes `length`."""
    return 5 * length


def measure(bench: Bench, seed: int) -> Measured:
    """Validation and test AUC × 100 of baseline, ROS, ROS to three ratios, and of points on the path."""
    rho = bench.imbalance.rho
    ratios = [float(ratio) for ratio in np.geomspace(1, rho, 5)]
    names = {ratio: f"ros:{ratio:.6g}" for ratio in ratios[1:-1]} | {1.0: "ros", rho: "baseline"}
    trained = {ratio: bench.train(name, seed) for ratio, name in names.items()}
    networks = {ratio: unit.networks[0] for ratio, unit in trained.items()}
    start, vector = networks[rho], comparison.difference(networks[1.0], networks[rho])
    points = {f"{alpha:g}": comparison.moved(start, [vector], [alpha]) for alpha in ALPHAS}
    sampled = {f"{ratio:.6g}": networks[ratio] for ratio in sorted(names)}
    values: Measured = {}
    for kind, candidates in (("alpha", points), ("ratio", sampled)):
        values[kind] = {}
        for key, network in candidates.items():
            values[kind][key] = bench.validation_and_test(network, trained[rho], "auc")
    return values


def outcome(by_seed: list[Measured]) -> Outcome:
    """The choices of every seed on validation, and their AUC on test."""
    words = {"alpha": "α of the path", "ratio": "ratio after ROS"}
    rows, chosen_rows, best = [], [], {}
    for kind, word in words.items():
        for key in by_seed[0][kind]:
            rows.append([word, key, comparison.mean([values[kind][key][1] for values in by_seed])])
        keys, best[kind] = comparison.chosen(by_seed, kind)
        chosen_rows.append([f"{word}, chosen on validation", ", ".join(keys), comparison.mean(best[kind])])
    ends = [max((values["alpha"][end] for end in "01"), key=lambda pair: pair[0])[1] for values in by_seed]
    end_row = ["better end of the path, baseline or ROS, chosen on validation", "", comparison.mean(ends)]
    claim = f"interpolation is no worse than a searched ratio (margin {MARGIN})"
    return Outcome(
        "The path from baseline to ROS against partial sampling",
        f"the interpolation's AUC is below that of the best ratio by more than {MARGIN}",
        ["", "value", "test AUC × 100"],
        [*rows, *chosen_rows, end_row],
        [
            compared(claim, best["alpha"], best["ratio"], -MARGIN),
            compared("interpolation is better than the better end of its path", best["alpha"], ends),
        ],
    )
