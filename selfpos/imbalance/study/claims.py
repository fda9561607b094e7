"""The study's claims A1-A9, checked on its records.

A claim is a list of checks, one in every setting that it is about: a mean over settings could hide the
reverse in one of them. A check looks at a quantity with a 95 % interval over seeds. It is met when the
interval lies on the claim's side, contradicted when it lies on the other, and open otherwise.

A claim holds when all its checks are met. It does not hold when a contradiction stays significant after
Holm's correction (1979) over the claim's checks. It was not run when no check has data. Else it is not
decided. MARGIN says what "considerably" and "flat" mean; the paper gives no number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfpos.imbalance.study.analysis import Step, Study, Values, difference, interval, p_value
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


@dataclass(frozen=True)
class Check:
    """One tested quantity; `met` None means open. `p`, two-sided, is of what speaks against it, if tested."""

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


def within(text: str, values: Values, low: float, high: float) -> Check:
    """The mean of `values` lies between `low` and `high`."""
    if not values:
        return not_run(text)
    mean = interval(values.values())
    met: bool | None = None
    if low < mean.low and mean.high < high:
        met = True
    elif mean.high < low or mean.low > high:
        met = False
    p = 1.0
    if not low <= mean.mean <= high:
        p = p_value(values.values(), low if mean.mean < low else high)
    return Check(text, str(mean), met, p)


def above(text: str, values: Values, margin: float = 0.0) -> Check:
    """The mean of `values` is greater than `margin` (a negative one for "not below by more than")."""
    return within(text, values, margin, math.inf)


def a1(study: Study) -> Claim:
    rhos, mus = study.axis("step", "rho"), study.axis("step", "mu")
    by_rho, by_mu = [], []
    for mu in mus if len(rhos) > 1 else []:
        fall = difference(*(Step(study, rho, mu).get("baseline") for rho in (rhos[0], rhos[-1])))
        by_rho.append(above(f"baseline AUC, ρ={rhos[0]:g} minus ρ={rhos[-1]:g} at μ={mu:g}", fall))
    for rho in rhos if len(mus) > 1 else []:
        fall = difference(*(Step(study, rho, mu).get("baseline") for mu in (mus[0], mus[-1])))
        by_mu.append(above(f"baseline AUC, μ={mus[0]:g} minus μ={mus[-1]:g} at ρ={rho:g}", fall))
    checks = by_rho or [not_run("baseline AUC falls with ρ")]
    checks += by_mu or [not_run("baseline AUC falls with μ")]
    return Claim("A1", "Baseline AUC falls with ρ and with μ", checks)


def a2(study: Study) -> Claim:
    sentence = "ROS is best in almost all step settings and never considerably below the baseline"
    best = "settings in which ROS has the best mean AUC"
    unbeaten = f"settings in which no method is significantly better than ROS, {ALMOST_ALL:.0%} or more"
    highest, beaten, against, checks = 0, 0, [], []
    for step in study.steps():
        ros = step.get("ros")
        if not ros:
            continue
        gain = difference(ros, step.get("baseline"))
        checks.append(above(f"ROS minus baseline at {step}, above −{MARGIN}", gain, -MARGIN))
        leads = [difference(ros, step.get(name)) for name in ("rus", "two-phase-ros", "two-phase-rus")]
        if not any(leads):
            continue  # best of two, the other the baseline, is not best
        compared = [above("", lead) for lead in (gain, *leads) if lead]
        highest += all(interval(lead.values()).mean >= 0 for lead in (gain, *leads) if lead)
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
        rus = {mu: Step(study, rho, mu).get("rus") for mu in mus}
        gaps = {mu: difference(Step(study, rho, mu).get("ros"), rus[mu]) for mu in mus}
        flat = f"RUS at μ={low:g} minus at μ={high:g}, ρ={rho:g}, within ±{FLAT}"
        checks.append(within(flat, difference(rus[low], rus[high]), -FLAT, FLAT))
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
        for step in study.steps():
            ours, ends = step.get(name), [step.get(sampler), step.get("baseline")]
            if not ours.keys() & ends[0].keys() & ends[1].keys():
                continue
            # The order of the ends is the setting's, not each seed's: noise alone would put two-phase between
            # them.
            low, high = sorted(ends, key=lambda values: interval(values.values()).mean)
            worse = f"{name} minus the worse of its two ends at {step}, above −{MARGIN}"
            made.append(above(worse, difference(ours, low), -MARGIN))
            better = f"the better of its two ends minus {name} at {step}, above −{MARGIN}"
            made.append(above(better, difference(high, ours), -MARGIN))
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
    baseline, ros, rus = (
        {rho: study.get("linear", rho, None, method) for rho in rhos} for method in ("baseline", "ros", "rus")
    )
    loss = difference(study.get("balanced", 1.0, None, "baseline"), baseline[rhos[-1]])
    text = f"balanced minus linear ρ={rhos[-1]:g}, baseline, within ±{MARGIN}"
    checks = [within(text, loss, -MARGIN, MARGIN)]
    for rho in rhos:
        checks.append(above(f"ROS minus baseline, linear ρ={rho:g}", difference(ros[rho], baseline[rho])))
    if len(rhos) > 1:
        drop = difference(rus[rhos[0]], rus[rhos[-1]])
        falls = above(f"RUS at linear ρ={rhos[0]:g} minus at ρ={rhos[-1]:g}", drop)
    return Claim("A5", sentence, [*checks, falls])


def a6(study: Study) -> Claim:
    linear, matched = [], []
    for rho in study.axis("linear", "rho"):
        if step := study.get("step", rho, 0.5, "baseline"):
            gap = difference(study.get("linear", rho, None, "baseline"), step)
            linear.append(above(f"baseline on linear minus on step μ=0.5, same total, ρ={rho:g}", gap))
    control = "balanced set of the same total (our control) minus baseline"
    for setting in study.steps():
        if balanced := setting.get("size-matched"):
            gap = difference(balanced, setting.get("baseline"))
            matched.append(above(f"{control} at {setting}", gap))
    checks = linear or [not_run("baseline on linear minus on step μ=0.5")]
    checks += matched or [not_run(control)]
    return Claim("A6", "The loss comes from the distribution, not only from fewer examples", checks)


def a7(study: Study) -> Claim:
    checks = []
    for step in study.steps():
        plain, thresholded = (
            {name: step.get(name, rule, "accuracy") for name in ("baseline", "ros", "rus")}
            for rule in ("plain", "original")
        )
        for name in ("baseline", "ros"):
            gain = difference(thresholded[name], plain[name])
            checks.append(above(f"accuracy of {name} with thresholding minus without at {step}", gain))
        loss = difference(plain["rus"], thresholded["rus"])
        checks.append(above(f"accuracy of rus without thresholding minus with at {step}", loss))
        for name in ("baseline", "ros"):
            lead = difference(thresholded[name], thresholded["rus"])
            checks.append(above(f"accuracy of {name} minus rus, both with thresholding, at {step}", lead))
    sentence = (
        "Thresholding by the original priors raises accuracy, on the baseline or with ROS, and should not be "
        "joined with RUS"
    )
    return Claim("A7", sentence, checks)


def a8(study: Study) -> Claim:
    over, under = ([name for name in study.methods() if name.startswith(kind)] for kind in ("ros:", "rus:"))
    checks, moderate = [], []
    for step in study.steps():
        baseline, ros, rus = (step.get(name) for name in ("baseline", "ros", "rus"))
        for name in over:
            if part := step.get(name):
                checks.append(above(f"{name} minus baseline at {step}", difference(part, baseline)))
                text = f"full ROS minus {name} at {step}, above −{MARGIN}"
                checks.append(above(text, difference(ros, part), -MARGIN))
        gains = []
        for name in under:
            to_baseline, to_rus = (difference(step.get(name), end) for end in (baseline, rus))
            if shared := to_baseline.keys() & to_rus.keys():
                gains.append({seed: min(to_baseline[seed], to_rus[seed]) for seed in shared})
        if gains:
            best = max(gains, key=lambda gain: interval(gain.values()).mean)
            moderate.append((step, above("", best)))
    checks = checks or [not_run("partial ROS minus baseline")]
    some = "some partial RUS beats both its ends at some μ"
    values = "; ".join(f"{step}: {check.value}" for step, check in moderate)
    beats = any(check.met for _, check in moderate) or None
    checks.append(Check(some, values, beats) if moderate else not_run(some))
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
            measured = {seed: growth for seed, growth in growths.items() if growth is not None}
            few = Check(text, "too few points on the curves", None)
            checks.append(within(text, measured, -math.inf, 2 * MARGIN) if measured else few)
    return Claim("A9", "ROS does not overfit: its train-test gap does not grow", checks)


def _late_growth(curve: Sequence[Mapping[str, float]], group: str) -> float | None:
    """How far the gap × 100 grew in the second half of the training; None where the points cannot tell."""
    first_half = [point for point in curve if point["iteration"] <= curve[-1]["iteration"] / 2]
    if len(curve) < 3 or not first_half:
        return None
    start, end = (point[f"train_{group}"] - point[f"test_{group}"] for point in (first_half[-1], curve[-1]))
    return 100 * (end - start)


def check_claims(study: Study) -> list[Claim]:
    """All claims on one study; those it has no cells for were not run."""
    return [claim(study) for claim in (a1, a2, a3, a4, a5, a6, a7, a8, a9)]
