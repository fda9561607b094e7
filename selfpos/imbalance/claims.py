"""The study's claims A1-A9 as tests on its records: each holds, does not hold, is not decided or was not run, with the numbers it rests on.

A claim is a list of checks. A check looks at a quantity with a 95 % interval over seeds and is met when the interval lies wholly on the
claim's side, contradicted when it lies wholly on the other, and open otherwise. A claim holds when all its checks are met, does not hold
when one is contradicted, and was not run when no check has data. What may differ between settings is checked in each of them: in a mean over all,
large effects of one setting hide the reverse in another. MARGIN says what "considerably" and "flat" mean; the paper gives no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfpos.imbalance.analysis import Study, difference, interval

MARGIN = 0.5  # points of AUC or accuracy
FLAT = 1.0  # points of AUC within which RUS counts as flat
ALMOST_ALL = 0.8  # share of the settings
NOT_RUN = "not run"

Values = Mapping[int, float]


@dataclass(frozen=True)
class Check:
    """One tested quantity; `met` None means open."""

    text: str
    value: str
    met: bool | None


@dataclass(frozen=True)
class Claim:
    """One of the study's claims and what became of it."""

    name: str
    sentence: str
    checks: list[Check]

    @property
    def verdict(self) -> str:
        if any(check.met is False for check in self.checks):
            return "does not hold"
        if all(check.value == NOT_RUN for check in self.checks):
            return NOT_RUN
        return "holds" if all(check.met for check in self.checks) else "not decided"


def above(text: str, values: Values, margin: float = 0.0) -> Check:
    """The mean of `values` is greater than `margin` (give a negative one for "not below by more than")."""
    if not values:
        return Check(text, NOT_RUN, None)
    found = interval(values.values())
    return Check(text, str(found), True if found.low > margin else False if found.high < margin else None)


def within(text: str, values: Values, margin: float) -> Check:
    """The mean of `values` lies between −margin and margin."""
    if not values:
        return Check(text, NOT_RUN, None)
    found = interval(values.values())
    outside = found.low > margin or found.high < -margin
    return Check(text, str(found), True if -margin < found.low and found.high < margin else False if outside else None)


def step_cells(study: Study) -> list[tuple[float, float]]:
    """All (ρ, μ) at which step imbalance was run."""
    return [(rho, mu) for rho in study.axis("step", "rho") for mu in study.axis("step", "mu") if study.get("step", rho, mu, "baseline")]


def a1(study: Study) -> Claim:
    rhos, mus = study.axis("step", "rho"), study.axis("step", "mu")
    checks = []
    for mu in mus if len(rhos) > 1 else []:
        drop = difference(study.get("step", rhos[0], mu, "baseline"), study.get("step", rhos[-1], mu, "baseline"))
        checks.append(above(f"baseline AUC, ρ={rhos[0]:g} minus ρ={rhos[-1]:g} at μ={mu:g}", drop))
    for rho in rhos if len(mus) > 1 else []:
        drop = difference(study.get("step", rho, mus[0], "baseline"), study.get("step", rho, mus[-1], "baseline"))
        checks.append(above(f"baseline AUC, μ={mus[0]:g} minus μ={mus[-1]:g} at ρ={rho:g}", drop))
    return Claim("A1", "Baseline AUC falls with ρ and with μ", checks)


def a2(study: Study) -> Claim:
    rivals = [name for name in ("baseline", "rus", "two-phase-ros", "two-phase-rus") if name in study.methods()]
    cells = [cell for cell in step_cells(study) if study.get("step", *cell, "ros")]
    beaten, highest, checks = 0, 0, []
    for rho, mu in cells:
        ours = study.get("step", rho, mu, "ros")
        gaps = {name: interval(difference(ours, study.get("step", rho, mu, name)).values()) for name in rivals}
        highest += all(gap.mean >= 0 or np.isnan(gap.mean) for gap in gaps.values())
        beaten += any(gap.high < 0 for gap in gaps.values())
        checks.append(
            above(
                f"ROS minus baseline at ρ={rho:g} μ={mu:g}, above −{MARGIN}",
                difference(ours, study.get("step", rho, mu, "baseline")),
                -MARGIN,
            )
        )
    if cells:
        enough = len(cells) - beaten >= ALMOST_ALL * len(cells)
        checks.insert(
            0,
            Check(
                "settings in which ROS has the best mean AUC",
                f"{highest} of {len(cells)}",
                True if highest >= ALMOST_ALL * len(cells) else None,
            ),
        )
        checks.insert(
            1,
            Check(
                f"settings in which no method is significantly better than ROS, {ALMOST_ALL:.0%} or more",
                f"{len(cells) - beaten} of {len(cells)}",
                enough,
            ),
        )
    return Claim("A2", "ROS is best in almost all step settings and never considerably below the baseline", checks)


def a3(study: Study) -> Claim:
    mus, checks = study.axis("step", "mu"), []
    for rho in study.axis("step", "rho") if len(mus) > 1 else []:
        ends = [study.get("step", rho, mu, "rus") for mu in (mus[0], mus[-1])]
        gaps = [difference(study.get("step", rho, mu, "ros"), study.get("step", rho, mu, "rus")) for mu in (mus[0], mus[-1])]
        checks.append(within(f"RUS at μ={mus[0]:g} minus at μ={mus[-1]:g}, ρ={rho:g}, within ±{FLAT}", difference(*ends), FLAT))
        checks.append(above(f"gap of RUS to ROS, μ={mus[0]:g} minus μ={mus[-1]:g}, ρ={rho:g}", difference(*gaps)))
        for mu in mus:
            gap = difference(study.get("step", rho, mu, "ros"), study.get("step", rho, mu, "rus"))
            checks.append(above(f"ROS minus RUS at ρ={rho:g} μ={mu:g}, above −{MARGIN}", gap, -MARGIN))
    return Claim("A3", "RUS is flat in μ, its gap to ROS shrinks with μ, and it is never notably better than ROS", checks)


def a4(study: Study) -> Claim:
    checks = []
    for sampler in ("ros", "rus"):
        name, found = f"two-phase-{sampler}", []
        for rho, mu in step_cells(study):
            ours, base, parent = (study.get("step", rho, mu, method) for method in (name, "baseline", sampler))
            if not ours.keys() & base.keys() & parent.keys():
                continue
            # The order of the two ends is the setting's, not each seed's, or noise alone would put two-phase between them.
            high, low = (base, parent) if interval(base.values()).mean >= interval(parent.values()).mean else (parent, base)
            place = f"ρ={rho:g} μ={mu:g}, above −{MARGIN}"
            found.append(above(f"{name} minus the worse of its two ends at {place}", difference(ours, low), -MARGIN))
            found.append(above(f"the better of its two ends minus {name} at {place}", difference(high, ours), -MARGIN))
        checks += found or [above(f"{name} between its two ends", {})]
    return Claim("A4", "Two-phase training lies between the baseline and its sampler, with no gain over the better of the two", checks)


def a5(study: Study) -> Claim:
    rhos = study.axis("linear", "rho")
    if not rhos:
        return Claim("A5", _A5, [])
    full = study.get("balanced", 1.0, None, "baseline")
    loss = difference(full, study.get("linear", rhos[-1], None, "baseline"))
    checks = [within(f"balanced minus linear ρ={rhos[-1]:g}, baseline, within ±{MARGIN}", loss, MARGIN)]
    for rho in rhos:
        gain = difference(study.get("linear", rho, None, "ros"), study.get("linear", rho, None, "baseline"))
        checks.append(above(f"ROS minus baseline, linear ρ={rho:g}", gain))
    if len(rhos) > 1:
        drop = difference(study.get("linear", rhos[0], None, "rus"), study.get("linear", rhos[-1], None, "rus"))
        checks.append(above(f"RUS at linear ρ={rhos[0]:g} minus at ρ={rhos[-1]:g}", drop))
    return Claim("A5", _A5, checks)


_A5 = "Linear imbalance hardly hurts the baseline; ROS improves on it at every ρ; RUS falls with ρ"


def a6(study: Study) -> Claim:
    linear, matched = [], []
    for rho in study.axis("linear", "rho"):
        if step := study.get("step", rho, 0.5, "baseline"):
            gap = difference(study.get("linear", rho, None, "baseline"), step)
            linear.append(above(f"baseline on linear minus on step μ=0.5, same total, ρ={rho:g}", gap))
    for rho, mu in step_cells(study):
        if control := study.get("step", rho, mu, "size-matched"):
            gap = difference(control, study.get("step", rho, mu, "baseline"))
            matched.append(above(f"balanced set of the same total (our control) minus baseline at ρ={rho:g} μ={mu:g}", gap))
    checks = linear or [above("baseline on linear minus on step μ=0.5", {})]
    checks += matched or [above("balanced set of the same total (our control) minus baseline", {})]
    return Claim("A6", "The loss comes from the distribution, not only from fewer examples", checks)


def a7(study: Study) -> Claim:
    checks = []
    for rho, mu in step_cells(study):

        def accuracy(method: str, rule: str, at: tuple[float, float] = (rho, mu)) -> dict[int, float]:
            return study.get("step", *at, method, rule, "accuracy")

        place = f"ρ={rho:g} μ={mu:g}"
        for name in ("baseline", "ros"):
            gain = difference(accuracy(name, "original"), accuracy(name, "plain"))
            checks.append(above(f"accuracy of {name} with thresholding minus without at {place}", gain))
        loss = difference(accuracy("rus", "plain"), accuracy("rus", "original"))
        checks.append(above(f"accuracy of rus without thresholding minus with at {place}", loss))
        for name in ("baseline", "ros"):
            lead = difference(accuracy(name, "original"), accuracy("rus", "original"))
            checks.append(above(f"accuracy of {name} minus rus, both with thresholding, at {place}", lead))
    return Claim(
        "A7", "Thresholding by the original priors raises accuracy, on the baseline or with ROS, and should not be joined with RUS", checks
    )


def a8(study: Study) -> Claim:
    partial = {kind: [name for name in study.methods() if name.startswith(f"{kind}:")] for kind in ("ros", "rus")}
    checks, moderate = [], []
    for rho, mu in step_cells(study):
        base, over, under = (study.get("step", rho, mu, name) for name in ("baseline", "ros", "rus"))
        place = f"ρ={rho:g} μ={mu:g}"
        for name in partial["ros"]:
            if part := study.get("step", rho, mu, name):
                checks.append(above(f"{name} minus baseline at {place}", difference(part, base)))
                checks.append(above(f"full ROS minus {name} at {place}, above −{MARGIN}", difference(over, part), -MARGIN))
        gains = []
        for name in partial["rus"]:
            if part := study.get("step", rho, mu, name):
                against = difference(part, base), difference(part, under)
                gains.append({seed: min(against[0][seed], against[1][seed]) for seed in against[0].keys() & against[1].keys()})
        if gains:
            best = max(gains, key=lambda gain: interval(gain.values()).mean)
            moderate.append(above(f"best partial RUS minus the better of baseline and full RUS at {place}", best))
    if moderate:
        value = "; ".join(f"{check.text.split(' at ')[-1]}: {check.value}" for check in moderate)
        checks.append(Check("some partial RUS beats both its ends at some μ", value, any(check.met for check in moderate) or None))
    return Claim("A8", "Partial ROS always helps and full ROS is best; an intermediate RUS can beat both full RUS and the baseline", checks)


def a9(study: Study) -> Claim:
    checks = []
    for cell, records in study.cells.items():
        profile, rho, mu, method, rule = cell
        curves = {seed: record["curve"] for seed, record in records.items() if record["curve"]}
        if method != "ros" or rule != "plain" or profile != "step" or not curves:
            continue
        for group in ("balanced", "minority"):
            classes = "all" if group == "balanced" else group
            text = f"growth of ROS's train-test gap ({classes} classes) in the second half, ρ={rho:g} μ={mu:g}, below {2 * MARGIN}"
            grown = {seed: growth for seed, curve in curves.items() if (growth := _late_growth(curve, group)) is not None}
            if not grown:
                checks.append(Check(text, "too few points on the curves", None))
                continue
            found = interval(grown.values())
            checks.append(Check(text, str(found), True if found.high < 2 * MARGIN else False if found.low > 2 * MARGIN else None))
    return Claim("A9", "ROS does not overfit: its train-test gap does not grow", checks)


def _late_growth(curve: Sequence[Mapping[str, float]], group: str) -> float | None:
    """How far the gap × 100 grew from half of the iterations, or the last point before, to the end; None where the points cannot tell."""
    first_half = [point for point in curve if point["iteration"] <= curve[-1]["iteration"] / 2]
    if len(curve) < 3 or not first_half:
        return None
    return 100 * (_gap(curve[-1], group) - _gap(first_half[-1], group))


def _gap(point: Mapping[str, float], group: str) -> float:
    return point[f"train_{group}"] - point[f"test_{group}"]


CLAIMS: list[Callable[[Study], Claim]] = [a1, a2, a3, a4, a5, a6, a7, a8, a9]


def check_claims(study: Study) -> list[Claim]:
    """All claims on one study; those it has no cells for were not run."""
    return [claim(study) for claim in CLAIMS]
