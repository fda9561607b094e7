"""Norms: ‖V‖ against the number of examples, ‖w_i‖ against n_i, and what equalising them after training is
worth beside resampling.

Number of examples and number of updates go together in "equal epochs", so the lengths are measured with equal
steps too. τ-normalisation (Kang et al. 2020, arXiv 1910.09217) is applied to head rows, w_i / ‖w_i‖^τ, and to
the vectors of two experts, V_i / ‖V_i‖^τ, on one grid of τ.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from selfpos.imbalance.carryover.arms import Bench, difference, inner, measures, moved
from selfpos.imbalance.carryover.outcome import Finding, Judgement, Outcome, Values, finding, mean
from selfpos.imbalance.study.cell import Imbalance
from selfpos.imbalance.study.methods.heads import normalised_head
from selfpos.imbalance.study.networks import Network
from selfpos.imbalance.study.trainer import Sample

SHARES = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
TAUS = [round(0.1 * step, 1) for step in range(21)]
MARGIN = 1.0  # points of balanced accuracy
R_MARGIN = 0.1  # of R²
TRAININGS = 10.94  # lengths of the recipe's training that a seed takes


def measure(bench: Bench, seed: int) -> Values:
    """R² of the linear fits, cosines, and balanced accuracy by τ on validation and test."""
    steps = bench.recipe.training.iterations
    full = Imbalance("balanced", 1.0, None, bench.imbalance.minority)
    lengths: dict[str, list[float]] = {"steps": [], "epochs": []}
    cosines = []
    for regime, found in lengths.items():
        vectors = []
        for share in SHARES:
            smaller = bench.recipe.model_copy(update={"n_max": max(round(share * bench.recipe.n_max), 1)})
            place = replace(bench, imbalance=full, recipe=smaller).lasting(
                steps if regime == "steps" else max(round(share * steps), 1)
            )
            trained = place.train("baseline", seed).networks[0]
            vectors.append(difference(trained, bench.untrained(seed)))
        found += [inner(v, v) ** 0.5 for v in vectors]
        cosines.append([inner(v, vectors[-1]) / (a * found[-1]) for v, a in zip(vectors, found, strict=True)])
    longtail = replace(
        bench, imbalance=Imbalance("exp", bench.imbalance.rho, None, bench.imbalance.minority)
    ).train("baseline", seed)
    rows = longtail.networks[0].classifier.weight.detach().flatten(1).norm(dim=1).cpu().numpy()
    counts = longtail.samples[0].counts
    base, ros = bench.train("baseline", seed), bench.train("ros", seed)
    network, sample, test = base.networks[0], base.samples[0], base.scoring.test
    start, experts, _ = bench.experts(seed)
    vectors = [difference(expert, start) for expert in experts]
    sizes = np.array([inner(v, v) ** 0.5 for v in vectors])

    def scored(candidate: Network, sample: Sample) -> list[float]:
        sets = [
            bench.predict(candidate, sample.validation, test=False),
            bench.predict(candidate, test, test=True),
        ]
        return [measures(*one, sample)["balanced accuracy"] for one in sets]

    def with_rows(tau: float) -> Network:
        changed = copy.deepcopy(network)
        changed.head = normalised_head(network, tau)
        return changed

    return {
        "lengths": lengths, "cosines": dict(zip(lengths, cosines, strict=True)), "rows": rows.tolist(), "counts": counts.tolist(),
        "fit": {f"‖V‖ on N, equal {regime}": r_squared(SHARES, found) for regime, found in lengths.items()}
        | {"‖w_i‖ on n_i": r_squared(counts, rows), "‖w_i‖ on log n_i": r_squared(np.log(counts), rows)},
        "ros": scored(ros.networks[0], sample), "baseline": scored(network, sample),
        "head rows": {f"{tau:g}": scored(with_rows(tau), sample) for tau in TAUS},
        # Scaled so that τ = 0 is the average, and equal lengths are left as they are.
        "vectors": {f"{tau:g}": scored(moved(start, vectors, list(0.5 * (sizes.mean() / sizes) ** tau)), sample) for tau in TAUS},
    }  # fmt: skip


def r_squared(x: object, y: object) -> float:
    """Of the straight line through the points."""
    return float(np.corrcoef(np.asarray(x, np.float64), np.asarray(y, np.float64))[0, 1] ** 2)


def outcome(found: list[Values]) -> Outcome:
    """Fits, and the τ chosen on validation against ROS."""
    rows = [[f"R² of {name}", "", mean([one["fit"][name] for one in found], 3)] for name in found[0]["fit"]]
    for regime in ("steps", "epochs"):
        longer = [one["lengths"][regime][-1] / one["lengths"][regime][0] for one in found]
        rows.append([f"‖V‖ at N ÷ ‖V‖ at N/16, equal {regime}", "", mean(longer)])
        rows.append(
            [
                f"cosine of V at N/16 and at N, equal {regime}",
                "",
                mean([one["cosines"][regime][0] for one in found], 3),
            ]
        )
    rows += [
        [f"balanced accuracy, {name}", "", mean([one[name][1] for one in found])]
        for name in ("baseline", "ros")
    ]
    fits = {
        regime: [one["fit"][f"‖V‖ on N, equal {regime}"] for one in found] for regime in ("steps", "epochs")
    }
    claim = f"‖V‖ is as linear in N with equal steps as with equal epochs (R², margin {R_MARGIN})"
    findings: list[Finding | Judgement] = [finding(claim, fits["steps"], fits["epochs"], -R_MARGIN)]
    for kind in ("head rows", "vectors"):
        chosen = [max(one[kind], key=lambda tau, own=one[kind]: own[tau][0]) for one in found]  # type: ignore[misc]
        best = [one[kind][tau][1] for one, tau in zip(found, chosen, strict=True)]
        rows.append([f"balanced accuracy, τ-normalised {kind}", "τ " + ", ".join(chosen), mean(best)])
        claim = f"τ-normalised {kind} are as good as ROS (balanced accuracy, margin {MARGIN})"
        # τ = 0 leaves the lengths as they are: what would be judged is not normalised at all.
        idle = all(float(tau) == 0 for tau in chosen)
        told = Judgement(claim, "the chosen τ is 0 for every seed, so nothing is normalised", "not decided")
        findings.append(told if idle else finding(claim, best, [one["ros"][1] for one in found], -MARGIN))
    return Outcome(
        "Norms of head rows and of vectors",
        "the claim on lengths fails when R² drops as steps, not epochs, are held equal",
        ["", "chosen on validation", "mean over seeds"],
        rows,
        findings,
    )
