"""The study's claims A1-A9, checked on its records.

A claim is a list of checks, one in every setting that it is about: a mean over settings could hide the
reverse in one of them. A check looks at a quantity with a 95 % interval over seeds. It is met when the
interval lies on the claim's side, contradicted when it lies on the other, and open otherwise.

A claim holds when all its checks are met. It does not hold when a contradiction stays significant after
Holm's correction (1979) over the claim's checks. It was not run when no check has data. Else it is not
decided. MARGIN says what "considerably" and "flat" mean; the paper gives no number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfpos.imbalance.study.analysis import Study, difference, interval, p_value
from selfpos.scores.intervals import holm

MARGIN = 0.5  # points of AUC or accuracy
FLAT = 1.0  # points of AUC within which RUS counts as flat
ALMOST_ALL = 0.8  # share of the settings
SIGNIFICANT = 0.05
NOT_RUN = "not run"
RULE = (
    "A claim holds when all its checks are met. It does not hold when a check is contradicted after Holm's "
    f"correction over the claim's checks (two-sided, {SIGNIFICANT:.0%}). Else it is not decided: checks are "
    "open, a part was not run, or a check is contradicted before the correction only."
)

Values = Mapping[int, float]


@dataclass(frozen=True)
class Check:
    """One tested quantity; `met` None means open.

    `p`, two-sided, is of what speaks against it; None where nothing was tested.
    """

    text: str
    value: str
    met: bool | None
    p: float | None = None


@dataclass(frozen=True)
class Claim:
    """One of the study's claims and what became of it."""

    name: str
    sentence: str
    checks: list[Check]

    @property
    def contradicted(self) -> list[Check]:
        """The checks that are contradicted after Holm's correction over all that were tested."""
        tested = [check for check in self.checks if check.p is not None]
        adjusted = holm([check.p or 0.0 for check in tested])
        return [check for check, p in zip(tested, adjusted, strict=True) if p <= SIGNIFICANT]

    @property
    def uncorrected(self) -> list[Check]:
        """The checks that are contradicted before the correction only."""
        corrected = self.contradicted
        return [check for check in self.checks if check.met is False and check not in corrected]

    @property
    def verdict(self) -> str:
        if self.contradicted:
            return "does not hold"
        if all(check.value == NOT_RUN for check in self.checks):
            return NOT_RUN
        return "holds" if all(check.met for check in self.checks) else "not decided"

    @property
    def summary(self) -> str:
        """The verdict; an undecided one with the number of contradictions before the correction only."""
        count, tested = len(self.uncorrected), sum(check.p is not None for check in self.checks)
        if self.verdict != "not decided" or not count:
            return self.verdict
        return f"{self.verdict} ({count} of {tested} checks contradicted before the correction only)"


def not_run(text: str) -> Check:
    """A part of a claim that there are no data for."""
    return Check(text, NOT_RUN, None)


def above(text: str, values: Values, margin: float = 0.0) -> Check:
    """The mean of `values` is greater than `margin` (a negative one for "not below by more than")."""
    return _compared(text, values, margin, sign=1)


def below(text: str, values: Values, margin: float) -> Check:
    """The mean of `values` is less than `margin`."""
    return _compared(text, values, margin, sign=-1)


def _compared(text: str, values: Values, margin: float, *, sign: int) -> Check:
    if not values:
        return not_run(text)
    mean = interval(values.values())
    nearest, farthest = (mean.low, mean.high) if sign > 0 else (mean.high, mean.low)
    met: bool | None = None
    if sign * nearest > sign * margin:
        met = True
    elif sign * farthest < sign * margin:
        met = False
    against = sign * mean.mean < sign * margin
    return Check(text, str(mean), met, p_value(values.values(), margin) if against else 1.0)


def within(text: str, values: Values, margin: float) -> Check:
    """The mean of `values` lies between −margin and margin."""
    if not values:
        return not_run(text)
    mean = interval(values.values())
    met: bool | None = None
    if -margin < mean.low and mean.high < margin:
        met = True
    elif mean.low > margin or mean.high < -margin:
        met = False
    outside = abs(mean.mean) > margin
    p = p_value(values.values(), np.copysign(margin, mean.mean)) if outside else 1.0
    return Check(text, str(mean), met, p)


def step_cells(study: Study) -> list[tuple[float, float]]:
    """All (ρ, μ) at which step imbalance was run."""
    cells = itertools.product(study.axis("step", "rho"), study.axis("step", "mu"))
    return [(rho, mu) for rho, mu in cells if study.get("step", rho, mu, "baseline")]


def a1(study: Study) -> Claim:
    rhos, mus = study.axis("step", "rho"), study.axis("step", "mu")
    by_rho, by_mu = [], []
    for mu in mus if len(rhos) > 1 else []:
        ends = [study.get("step", rho, mu, "baseline") for rho in (rhos[0], rhos[-1])]
        text = f"baseline AUC, ρ={rhos[0]:g} minus ρ={rhos[-1]:g} at μ={mu:g}"
        by_rho.append(above(text, difference(*ends)))
    for rho in rhos if len(mus) > 1 else []:
        ends = [study.get("step", rho, mu, "baseline") for mu in (mus[0], mus[-1])]
        text = f"baseline AUC, μ={mus[0]:g} minus μ={mus[-1]:g} at ρ={rho:g}"
        by_mu.append(above(text, difference(*ends)))
    checks = by_rho or [not_run("baseline AUC falls with ρ")]
    checks += by_mu or [not_run("baseline AUC falls with μ")]
    return Claim("A1", "Baseline AUC falls with ρ and with μ", checks)


def a2(study: Study) -> Claim:
    sentence = "ROS is best in almost all step settings and never considerably below the baseline"
    best = "settings in which ROS has the best mean AUC"
    unbeaten = f"settings in which no method is significantly better than ROS, {ALMOST_ALL:.0%} or more"
    highest, beaten, against, checks = 0, 0, [], []
    for rho, mu in step_cells(study):
        ros, baseline = study.get("step", rho, mu, "ros"), study.get("step", rho, mu, "baseline")
        if not ros:
            continue
        gain = difference(ros, baseline)
        checks.append(above(f"ROS minus baseline at ρ={rho:g} μ={mu:g}, above −{MARGIN}", gain, -MARGIN))
        rivals = [study.get("step", rho, mu, name) for name in ("rus", "two-phase-ros", "two-phase-rus")]
        gaps = [gap for gap in (gain, *(difference(ros, rival) for rival in rivals)) if gap]
        if not any(difference(ros, rival) for rival in rivals):
            continue  # best of two, the other the baseline, is not best
        compared = [above("", gap) for gap in gaps]
        highest += all(interval(gap.values()).mean >= 0 for gap in gaps)
        beaten += any(check.met is False for check in compared)
        against.append(min(1.0, len(compared) * min(check.p or 0.0 for check in compared)))
    cells = len(against)
    if cells < 2:  # "almost all" of one setting says nothing
        return Claim("A2", sentence, [not_run(best), not_run(unbeaten), *checks])
    # So many beaten settings contradict the claim. The largest of their p, corrected for the choice, speaks
    # for all.
    fewest = next(count for count in range(1, cells + 1) if cells - count < ALMOST_ALL * cells)
    p = min(1.0, (cells - fewest + 1) * sorted(against)[fewest - 1])
    counted = [
        Check(best, f"{highest} of {cells}", True if highest >= ALMOST_ALL * cells else None),
        Check(unbeaten, f"{cells - beaten} of {cells}", beaten < fewest, p),
    ]
    return Claim("A2", sentence, counted + checks)


def a3(study: Study) -> Claim:
    mus, checks = study.axis("step", "mu"), []
    for rho in study.axis("step", "rho") if len(mus) > 1 else []:
        low, high = mus[0], mus[-1]
        rus = {mu: study.get("step", rho, mu, "rus") for mu in mus}
        gaps = {mu: difference(study.get("step", rho, mu, "ros"), rus[mu]) for mu in mus}
        flat = f"RUS at μ={low:g} minus at μ={high:g}, ρ={rho:g}, within ±{FLAT}"
        checks.append(within(flat, difference(rus[low], rus[high]), FLAT))
        shrinks = f"gap of RUS to ROS, μ={low:g} minus μ={high:g}, ρ={rho:g}"
        checks.append(above(shrinks, difference(gaps[low], gaps[high])))
        for mu in mus:
            checks.append(above(f"ROS minus RUS at ρ={rho:g} μ={mu:g}, above −{MARGIN}", gaps[mu], -MARGIN))
    sentence = "RUS is flat in μ, its gap to ROS shrinks with μ, and it is never notably better than ROS"
    return Claim("A3", sentence, checks)


def a4(study: Study) -> Claim:
    checks = []
    for sampler in ("ros", "rus"):
        name, made = f"two-phase-{sampler}", []
        for rho, mu in step_cells(study):
            ours = study.get("step", rho, mu, name)
            ends = [study.get("step", rho, mu, method) for method in (sampler, "baseline")]
            if not ours.keys() & ends[0].keys() & ends[1].keys():
                continue
            # The order of the ends is the setting's, not each seed's: noise alone would put two-phase between
            # them.
            low, high = sorted(ends, key=lambda values: interval(values.values()).mean)
            setting = f"ρ={rho:g} μ={mu:g}, above −{MARGIN}"
            worse = f"{name} minus the worse of its two ends at {setting}"
            better = f"the better of its two ends minus {name} at {setting}"
            made += [
                above(worse, difference(ours, low), -MARGIN),
                above(better, difference(high, ours), -MARGIN),
            ]
        checks += made or [not_run(f"{name} between its two ends")]
    sentence = (
        "Two-phase training lies between the baseline and its sampler, with no gain over the better of the "
        "two"
    )
    return Claim("A4", sentence, checks)


def a5(study: Study) -> Claim:
    sentence = "Linear imbalance hardly hurts the baseline; ROS improves on it at every ρ; RUS falls with ρ"
    falls = not_run("RUS at a lower linear ρ minus at a higher")
    rhos = study.axis("linear", "rho")
    if not rhos:
        parts = ["balanced minus linear, baseline", "ROS minus baseline, linear"]
        return Claim("A5", sentence, [*map(not_run, parts), falls])

    def linear(rho: float, method: str) -> dict[int, float]:
        return study.get("linear", rho, None, method)

    loss = difference(study.get("balanced", 1.0, None, "baseline"), linear(rhos[-1], "baseline"))
    checks = [within(f"balanced minus linear ρ={rhos[-1]:g}, baseline, within ±{MARGIN}", loss, MARGIN)]
    for rho in rhos:
        gain = difference(linear(rho, "ros"), linear(rho, "baseline"))
        checks.append(above(f"ROS minus baseline, linear ρ={rho:g}", gain))
    if len(rhos) > 1:
        drop = difference(linear(rhos[0], "rus"), linear(rhos[-1], "rus"))
        falls = above(f"RUS at linear ρ={rhos[0]:g} minus at ρ={rhos[-1]:g}", drop)
    return Claim("A5", sentence, [*checks, falls])


def a6(study: Study) -> Claim:
    linear, matched = [], []
    for rho in study.axis("linear", "rho"):
        if step := study.get("step", rho, 0.5, "baseline"):
            gap = difference(study.get("linear", rho, None, "baseline"), step)
            linear.append(above(f"baseline on linear minus on step μ=0.5, same total, ρ={rho:g}", gap))
    control = "balanced set of the same total (our control) minus baseline"
    for rho, mu in step_cells(study):
        if balanced := study.get("step", rho, mu, "size-matched"):
            gap = difference(balanced, study.get("step", rho, mu, "baseline"))
            matched.append(above(f"{control} at ρ={rho:g} μ={mu:g}", gap))
    checks = linear or [not_run("baseline on linear minus on step μ=0.5")]
    checks += matched or [not_run(control)]
    return Claim("A6", "The loss comes from the distribution, not only from fewer examples", checks)


def a7(study: Study) -> Claim:
    checks = []
    for rho, mu in step_cells(study):
        plain, thresholded = (
            {name: study.get("step", rho, mu, name, rule, "accuracy") for name in ("baseline", "ros", "rus")}
            for rule in ("plain", "original")
        )
        setting = f"ρ={rho:g} μ={mu:g}"
        for name in ("baseline", "ros"):
            gain = difference(thresholded[name], plain[name])
            checks.append(above(f"accuracy of {name} with thresholding minus without at {setting}", gain))
        loss = difference(plain["rus"], thresholded["rus"])
        checks.append(above(f"accuracy of rus without thresholding minus with at {setting}", loss))
        for name in ("baseline", "ros"):
            lead = difference(thresholded[name], thresholded["rus"])
            checks.append(above(f"accuracy of {name} minus rus, both with thresholding, at {setting}", lead))
    sentence = (
        "Thresholding by the original priors raises accuracy, on the baseline or with ROS, and should not be "
        "joined with RUS"
    )
    return Claim("A7", sentence, checks)


def a8(study: Study) -> Claim:
    over, under = ([name for name in study.methods() if name.startswith(kind)] for kind in ("ros:", "rus:"))
    checks, moderate = [], []
    for rho, mu in step_cells(study):
        baseline, ros, rus = (study.get("step", rho, mu, name) for name in ("baseline", "ros", "rus"))
        setting = f"ρ={rho:g} μ={mu:g}"
        for name in over:
            if part := study.get("step", rho, mu, name):
                checks.append(above(f"{name} minus baseline at {setting}", difference(part, baseline)))
                text = f"full ROS minus {name} at {setting}, above −{MARGIN}"
                checks.append(above(text, difference(ros, part), -MARGIN))
        gains = []
        for name in under:
            part = study.get("step", rho, mu, name)
            to_baseline, to_rus = difference(part, baseline), difference(part, rus)
            shared = to_baseline.keys() & to_rus.keys()
            if shared:
                gains.append({seed: min(to_baseline[seed], to_rus[seed]) for seed in shared})
        if gains:
            best = max(gains, key=lambda gain: interval(gain.values()).mean)
            moderate.append((setting, above("", best)))
    checks = checks or [not_run("partial ROS minus baseline")]
    some = "some partial RUS beats both its ends at some μ"
    if moderate:
        values = "; ".join(f"{setting}: {check.value}" for setting, check in moderate)
        checks.append(Check(some, values, any(check.met for _, check in moderate) or None))
    else:
        checks.append(not_run(some))
    sentence = (
        "Partial ROS always helps and full ROS is best; an intermediate RUS can beat both full RUS and the "
        "baseline"
    )
    return Claim("A8", sentence, checks)


def a9(study: Study) -> Claim:
    checks = []
    for (profile, rho, mu, method, rule), records in study.cells.items():
        curves = {seed: record["curve"] for seed, record in records.items() if record["curve"]}
        if (profile, method, rule) != ("step", "ros", "plain") or not curves:
            continue
        for group, classes in (("balanced", "all"), ("minority", "minority")):
            text = (
                f"growth of ROS's train-test gap ({classes} classes) in the second half, ρ={rho:g} μ={mu:g}, "
                f"below {2 * MARGIN}"
            )
            growths = {seed: _late_growth(curve, group) for seed, curve in curves.items()}
            known = {seed: growth for seed, growth in growths.items() if growth is not None}
            few = Check(text, "too few points on the curves", None)
            checks.append(below(text, known, 2 * MARGIN) if known else few)
    return Claim("A9", "ROS does not overfit: its train-test gap does not grow", checks)


def _late_growth(curve: Sequence[Mapping[str, float]], group: str) -> float | None:
    """How far the gap × 100 grew in the second half of the training; None where the points cannot tell."""
    first_half = [point for point in curve if point["iteration"] <= curve[-1]["iteration"] / 2]
    if len(curve) < 3 or not first_half:
        return None
    start, end = (point[f"train_{group}"] - point[f"test_{group}"] for point in (first_half[-1], curve[-1]))
    return 100 * (end - start)


CLAIMS: list[Callable[[Study], Claim]] = [a1, a2, a3, a4, a5, a6, a7, a8, a9]


def check_claims(study: Study) -> list[Claim]:
    """All claims on one study; those it has no cells for were not run."""
    return [claim(study) for claim in CLAIMS]
