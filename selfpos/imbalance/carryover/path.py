"""The path in weight space from the baseline to ROS, against sampling to a partial ratio: can one
interpolation replace a search over ratios?

Both networks start from the same weights. α on the path, and the ratio, are chosen on the validation images;
what is compared is the test AUC of the two choices, seed by seed.
"""

from __future__ import annotations

import numpy as np

from selfpos.imbalance.carryover.arms import Bench, difference, measures, moved
from selfpos.imbalance.carryover.outcome import Outcome, Values, finding, mean
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.trainer import Sample

MARGIN = 0.25  # points of AUC
ALPHAS = [round(0.1 * step, 1) for step in range(11)]
TRAININGS = 5.0  # lengths of the recipe's training that a seed takes


def measure(bench: Bench, seed: int) -> Values:
    """Validation and test AUC × 100 of baseline, ROS, ROS to three ratios between 1 and ρ, and eleven points
    between the first two.
    """
    rho = bench.imbalance.rho
    ratios = [float(ratio) for ratio in np.geomspace(1, rho, 5)]
    names = {ratio: f"ros:{ratio:.6g}" for ratio in ratios[1:-1]} | {1.0: "ros", rho: "baseline"}
    trained = {ratio: bench.train(name, seed) for ratio, name in names.items()}
    sample, test = trained[rho].samples[0], trained[rho].scoring.test

    def auc(network: Network, sample: Sample) -> list[float]:
        sets = [
            bench.predict(network, sample.validation, test=False),
            bench.predict(network, test, test=True),
        ]
        return [measures(*found, sample)["auc"] for found in sets]

    start, end = trained[rho].networks[0], trained[1.0].networks[0]
    way = difference(end, start)
    return {
        "alpha": {f"{alpha:g}": auc(moved(start, [way], [alpha]), sample) for alpha in ALPHAS},
        "ratio": {f"{ratio:.6g}": auc(trained[ratio].networks[0], sample) for ratio in sorted(names)},
    }


def outcome(found: list[Values]) -> Outcome:
    """The choices of every seed on validation, and what they are worth on test."""
    chosen = {
        kind: [max(one[kind].items(), key=lambda item: item[1][0])[0] for one in found]
        for kind in ("alpha", "ratio")
    }
    best = {
        kind: [one[kind][key][1] for one, key in zip(found, keys, strict=True)]
        for kind, keys in chosen.items()
    }
    words = {"alpha": "α of the path", "ratio": "ratio after ROS"}
    rows = [
        [word, key, mean([one[kind][key][1] for one in found])]
        for kind, word in words.items()
        for key in found[0][kind]
    ]
    rows += [
        [f"{word}, chosen on validation", ", ".join(chosen[kind]), mean(best[kind])]
        for kind, word in words.items()
    ]
    ends = [max((one["alpha"]["0"], one["alpha"]["1"]), key=lambda pair: pair[0])[1] for one in found]
    rows.append(["better end of the path, baseline or ROS, chosen on validation", "", mean(ends)])
    return Outcome(
        "The path from baseline to ROS against partial sampling",
        f"the interpolation's AUC is below that of the best ratio by more than {MARGIN}",
        ["", "value", "test AUC × 100"],
        rows,
        [
            finding(
                f"interpolation is no worse than a searched ratio (margin {MARGIN})",
                best["alpha"],
                best["ratio"],
                -MARGIN,
            ),
            finding("interpolation is better than the better end of its path", best["alpha"], ends),
        ],
    )
