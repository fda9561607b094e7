"""Norms: ‖V‖ against the number of examples, ‖w_i‖ against n_i, and their equalisation after training.

τ-normalisation (Kang et al. 2020, arXiv 1910.09217) is applied to head rows, w_i / ‖w_i‖^τ, and to the
vectors of two experts, V_i / ‖V_i‖^τ, and compared with resampling.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from selfpos.imbalance.carryover import comparison
from selfpos.imbalance.carryover.comparison import Bench, Finding, Measured, Outcome, Vector, compared, mean
from selfpos.imbalance.study.heads import normalised_head
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.scoring import TAUS
from selfpos.imbalance.study.unit import Imbalance

SHARES = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
MARGIN = 1.0  # points of balanced accuracy
R_MARGIN = 0.1  # of R²


def iterations(length: int) -> int:
    """Iterations that a seed takes in all, where the recipe's training takes `length`."""
    by_share = sum(length + share_of(share, length) for share in SHARES)
    return by_share + 3 * length + 3 * comparison.third(length)


def measure(bench: Bench, seed: int) -> Measured:
    """R² of the linear fits, cosines, and balanced accuracy by τ on validation and test."""
    by_regime, cosines = {}, {}
    for regime in ("steps", "epochs"):
        gram = comparison.gram_of(_vectors_by_share(bench, seed, equal_steps=regime == "steps"))
        sizes = comparison.lengths(gram)
        by_regime[regime] = sizes.tolist()
        cosines[regime] = (gram[:, -1].numpy() / (sizes * sizes[-1])).tolist()
    exponential = Imbalance("exp", bench.imbalance.rho, None)
    longtail = replace(bench, imbalance=exponential).train("baseline", seed)
    rows = longtail.networks[0].classifier.weight.detach().flatten(1).norm(dim=1).cpu().numpy()
    counts = longtail.samples[0].counts
    baseline, ros = bench.train("baseline", seed), bench.train("ros", seed)
    network = baseline.networks[0]
    start, experts, _ = bench.experts(seed)
    vectors = [comparison.difference(expert, start) for expert in experts]
    sizes = comparison.lengths(comparison.gram_of(vectors))

    def scores(candidate: Network) -> list[float]:
        return bench.validation_and_test(candidate, baseline, "balanced accuracy")

    by_rows, by_vectors = {}, {}
    for tau in TAUS:
        changed = copy.deepcopy(network)
        changed.head = normalised_head(network, tau)
        by_rows[f"{tau:g}"] = scores(changed)
        # Scaled so that τ = 0 is the average, and equal lengths do not change.
        coefficients = list(0.5 * (sizes.mean() / sizes) ** tau)
        by_vectors[f"{tau:g}"] = scores(comparison.moved(start, vectors, coefficients))
    fits = {f"‖V‖ on N, equal {regime}": r_squared(SHARES, values) for regime, values in by_regime.items()}
    fits |= {"‖w_i‖ on n_i": r_squared(counts, rows), "‖w_i‖ on log n_i": r_squared(np.log(counts), rows)}
    return {
        "lengths": by_regime,
        "cosines": cosines,
        "rows": rows.tolist(),
        "counts": counts.tolist(),
        "fit": fits,
        "ros": scores(ros.networks[0]),
        "baseline": scores(network),
        "head rows": by_rows,
        "vectors": by_vectors,
    }


def _vectors_by_share(bench: Bench, seed: int, *, equal_steps: bool) -> list[Vector]:
    """Vectors of networks trained on shares of a balanced set, with equal steps or equal epochs."""
    balanced = Imbalance("balanced", 1.0, None)
    recipe, vectors = bench.recipe, []
    for share in SHARES:
        smaller = recipe.model_copy(update={"n_max": share_of(share, recipe.n_max)})
        steps = recipe.training.iterations
        if not equal_steps:
            steps = share_of(share, steps)
        part = replace(bench, imbalance=balanced, recipe=smaller).with_iterations(steps)
        vectors.append(comparison.difference(part.train("baseline", seed).networks[0], bench.untrained(seed)))
    return vectors


def share_of(share: float, count: int) -> int:
    """So many of `count`, rounded; at least one."""
    return max(round(share * count), 1)


def r_squared(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Of the straight line through the points."""
    return float(np.corrcoef(np.asarray(x, np.float64), np.asarray(y, np.float64))[0, 1] ** 2)


def outcome(by_seed: list[Measured]) -> Outcome:
    """Fits, and the τ chosen on validation against ROS."""
    fits = {name: [values["fit"][name] for values in by_seed] for name in by_seed[0]["fit"]}
    rows = [[f"R² of {name}", "", mean(values, 3)] for name, values in fits.items()]
    for regime in ("steps", "epochs"):
        ratios = [values["lengths"][regime][-1] / values["lengths"][regime][0] for values in by_seed]
        cosines = [values["cosines"][regime][0] for values in by_seed]
        rows.append([f"‖V‖ at N ÷ ‖V‖ at N/16, equal {regime}", "", mean(ratios)])
        rows.append([f"cosine of V at N/16 and at N, equal {regime}", "", mean(cosines, 3)])
    for name in ("baseline", "ros"):
        rows.append([f"balanced accuracy, {name}", "", mean([values[name][1] for values in by_seed])])
    claim = f"‖V‖ is as linear in N with equal steps as with equal epochs (R², margin {R_MARGIN})"
    steps, epochs = (fits[f"‖V‖ on N, equal {regime}"] for regime in ("steps", "epochs"))
    findings: list[Finding] = [compared(claim, steps, epochs, -R_MARGIN)]
    for kind in ("head rows", "vectors"):
        taus, best = comparison.chosen(by_seed, kind)
        rows.append([f"balanced accuracy, τ-normalised {kind}", "τ " + ", ".join(taus), mean(best)])
        claim = f"τ-normalised {kind} are as good as ROS (balanced accuracy, margin {MARGIN})"
        if all(float(tau) == 0 for tau in taus):  # τ = 0 leaves the lengths as they are
            value = "the chosen τ is 0 for every seed, so nothing is normalised"
            findings.append(Finding(claim, value, "not decided"))
        else:
            findings.append(compared(claim, best, [values["ros"][1] for values in by_seed], -MARGIN))
    return Outcome(
        "Norms of head rows and of vectors",
        "the claim on lengths fails when R² drops as steps, not epochs, are held equal",
        ["", "chosen on validation", "mean over seeds"],
        rows,
        findings,
    )
