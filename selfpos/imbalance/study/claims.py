"""The study's claims A1-A9 as tests on its records: each holds, does not hold, is not decided or was not run, with the numbers it rests on.

A claim is a list of checks. A check looks at a quantity with a 95 % interval over seeds and is met when the interval lies wholly on the
claim's side, contradicted when it lies wholly on the other, and open otherwise. A claim holds when all its checks are met, and was not run
when no check has data; a part of it that has none is a check that was not run, so that the rest alone does not make it hold. It does not hold
when a contradiction stays significant after Holm's correction (1979) over the claim's checks: of forty checks at a claim's edge one is contradicted
by chance. Contradicted before the correction only, it is not decided. What may differ between settings is checked in each of them: in a mean over
all, large effects of one setting hide the reverse in another. MARGIN says what "considerably" and "flat" mean; the paper gives no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selfpos.imbalance.study.analysis import Study, difference, interval, p_value

MARGIN = 0.5  # points of AUC or accuracy
FLAT = 1.0  # points of AUC within which RUS counts as flat
ALMOST_ALL = 0.8  # share of the settings
SIGNIFICANT = 0.05
NOT_RUN = "not run"
RULE = (
    f"A claim holds when all its checks are met. It does not hold when a check is contradicted after Holm's correction over the claim's checks "
    f"(two-sided, {SIGNIFICANT:.0%}). Else it is not decided: checks are open, a part was not run, or a check is contradicted before the correction only."
)

Values = Mapping[int, float]


@dataclass(frozen=True)
class Check:
    """One tested quantity; `met` None means open. `p`, two-sided, is of what speaks against it; None where nothing was tested."""

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
        tested = sorted(
            (check for check in self.checks if check.p is not None), key=lambda check: check.p or 0.0
        )
        kept = []
        for place, check in enumerate(tested):
            if (check.p or 0.0) > SIGNIFICANT / (len(tested) - place):
                break
            kept.append(check)
        return [check for check in self.checks if check in kept]

    @property
    def uncorrected(self) -> list[Check]:
        """The checks that are contradicted before the correction only."""
        kept = self.contradicted
        return [check for check in self.checks if check.met is False and check not in kept]

    @property
    def verdict(self) -> str:
        if self.contradicted:
            return "does not hold"
        if all(check.value == NOT_RUN for check in self.checks):
            return NOT_RUN
        return "holds" if all(check.met for check in self.checks) else "not decided"

    @property
    def told(self) -> str:
        """The verdict for a table: an undecided one says how many checks speak against the claim before the correction only."""
        count, tested = len(self.uncorrected), sum(check.p is not None for check in self.checks)
        if self.verdict != "not decided" or not count:
            return self.verdict
        return f"{self.verdict} ({count} of {tested} checks contradicted before the correction only)"


def not_run(text: str) -> Check:
    """A part of a claim that there are no data for."""
    return Check(text, NOT_RUN, None)


def above(text: str, values: Values, margin: float = 0.0) -> Check:
    """The mean of `values` is greater than `margin` (give a negative one for "not below by more than")."""
    if not values:
        return not_run(text)
    found = interval(values.values())
    p = p_value(values.values(), margin) if found.mean < margin else 1.0
    return Check(text, str(found), True if found.low > margin else False if found.high < margin else None, p)


def below(text: str, values: Values, margin: float) -> Check:
    """The mean of `values` is less than `margin`."""
    if not values:
        return not_run(text)
    found = interval(values.values())
    p = p_value(values.values(), margin) if found.mean > margin else 1.0
    return Check(text, str(found), True if found.high < margin else False if found.low > margin else None, p)


def within(text: str, values: Values, margin: float) -> Check:
    """The mean of `values` lies between −margin and margin."""
    if not values:
        return not_run(text)
    found = interval(values.values())
    outside = found.low > margin or found.high < -margin
    p = p_value(values.values(), np.copysign(margin, found.mean)) if abs(found.mean) > margin else 1.0
    return Check(
        text,
        str(found),
        True if -margin < found.low and found.high < margin else False if outside else None,
        p,
    )


def step_cells(study: Study) -> list[tuple[float, float]]:
    """All (ρ, μ) at which step imbalance was run."""
    return [
        (rho, mu)
        for rho in study.axis("step", "rho")
        for mu in study.axis("step", "mu")
        if study.get("step", rho, mu, "baseline")
    ]


def a1(study: Study) -> Claim:
    rhos, mus = study.axis("step", "rho"), study.axis("step", "mu")
    by_rho, by_mu = [], []
    for mu in mus if len(rhos) > 1 else []:
        drop = difference(
            study.get("step", rhos[0], mu, "baseline"), study.get("step", rhos[-1], mu, "baseline")
        )
        by_rho.append(above(f"baseline AUC, ρ={rhos[0]:g} minus ρ={rhos[-1]:g} at μ={mu:g}", drop))
    for rho in rhos if len(mus) > 1 else []:
        drop = difference(
            study.get("step", rho, mus[0], "baseline"), study.get("step", rho, mus[-1], "baseline")
        )
        by_mu.append(above(f"baseline AUC, μ={mus[0]:g} minus μ={mus[-1]:g} at ρ={rho:g}", drop))
    checks = by_rho or [not_run("baseline AUC falls with ρ")]
    checks += by_mu or [not_run("baseline AUC falls with μ")]
    return Claim("A1", "Baseline AUC falls with ρ and with μ", checks)


def a2(study: Study) -> Claim:
    best, unbeaten = (
        "settings in which ROS has the best mean AUC",
        f"settings in which no method is significantly better than ROS, {ALMOST_ALL:.0%} or more",
    )
    highest, beaten, against, checks = 0, 0, [], []
    for rho, mu in step_cells(study):
        ours, base = study.get("step", rho, mu, "ros"), study.get("step", rho, mu, "baseline")
        if not ours:
            continue
        checks.append(
            above(
                f"ROS minus baseline at ρ={rho:g} μ={mu:g}, above −{MARGIN}", difference(ours, base), -MARGIN
            )
        )
        rivals = [
            difference(ours, study.get("step", rho, mu, name))
            for name in ("rus", "two-phase-ros", "two-phase-rus")
        ]
        gaps = [gap for gap in (difference(ours, base), *rivals) if gap]
        if not any(rivals):
            continue  # best of two, the other the baseline, is not best
        found = [above("", gap) for gap in gaps]
        highest += all(interval(gap.values()).mean >= 0 for gap in gaps)
        beaten += any(check.met is False for check in found)
        against.append(min(1.0, len(found) * min(check.p or 0.0 for check in found)))
    if len(against) < 2:  # "almost all" of one setting says nothing
        return Claim("A2", _A2, [not_run(best), not_run(unbeaten), *checks])
    cells = len(against)
    # It takes so many beaten settings to contradict; their largest p speaks for all of them, corrected for the choice among the rest.
    fewest = next(count for count in range(1, cells + 1) if cells - count < ALMOST_ALL * cells)
    p = min(1.0, (cells - fewest + 1) * sorted(against)[fewest - 1])
    counted = [
        Check(best, f"{highest} of {cells}", True if highest >= ALMOST_ALL * cells else None),
        Check(unbeaten, f"{cells - beaten} of {cells}", beaten < fewest, p),
    ]
    return Claim("A2", _A2, counted + checks)


_A2 = "ROS is best in almost all step settings and never considerably below the baseline"


def a3(study: Study) -> Claim:
    mus, checks = study.axis("step", "mu"), []
    for rho in study.axis("step", "rho") if len(mus) > 1 else []:
        ends = [study.get("step", rho, mu, "rus") for mu in (mus[0], mus[-1])]
        gaps = [
            difference(study.get("step", rho, mu, "ros"), study.get("step", rho, mu, "rus"))
            for mu in (mus[0], mus[-1])
        ]
        checks.append(
            within(
                f"RUS at μ={mus[0]:g} minus at μ={mus[-1]:g}, ρ={rho:g}, within ±{FLAT}",
                difference(*ends),
                FLAT,
            )
        )
        checks.append(
            above(f"gap of RUS to ROS, μ={mus[0]:g} minus μ={mus[-1]:g}, ρ={rho:g}", difference(*gaps))
        )
        for mu in mus:
            gap = difference(study.get("step", rho, mu, "ros"), study.get("step", rho, mu, "rus"))
            checks.append(above(f"ROS minus RUS at ρ={rho:g} μ={mu:g}, above −{MARGIN}", gap, -MARGIN))
    return Claim(
        "A3",
        "RUS is flat in μ, its gap to ROS shrinks with μ, and it is never notably better than ROS",
        checks,
    )


def a4(study: Study) -> Claim:
    checks = []
    for sampler in ("ros", "rus"):
        name, found = f"two-phase-{sampler}", []
        for rho, mu in step_cells(study):
            ours, base, parent = (
                study.get("step", rho, mu, method) for method in (name, "baseline", sampler)
            )
            if not ours.keys() & base.keys() & parent.keys():
                continue
            # The order of the two ends is the setting's, not each seed's, or noise alone would put two-phase between them.
            high, low = (
                (base, parent)
                if interval(base.values()).mean >= interval(parent.values()).mean
                else (parent, base)
            )
            place = f"ρ={rho:g} μ={mu:g}, above −{MARGIN}"
            found.append(
                above(f"{name} minus the worse of its two ends at {place}", difference(ours, low), -MARGIN)
            )
            found.append(
                above(f"the better of its two ends minus {name} at {place}", difference(high, ours), -MARGIN)
            )
        checks += found or [not_run(f"{name} between its two ends")]
    return Claim(
        "A4",
        "Two-phase training lies between the baseline and its sampler, with no gain over the better of the two",
        checks,
    )


def a5(study: Study) -> Claim:
    rhos = study.axis("linear", "rho")
    if not rhos:
        return Claim(
            "A5",
            _A5,
            [
                not_run("balanced minus linear, baseline"),
                not_run("ROS minus baseline, linear"),
                not_run(_RUS_FALLS),
            ],
        )
    full = study.get("balanced", 1.0, None, "baseline")
    loss = difference(full, study.get("linear", rhos[-1], None, "baseline"))
    checks = [within(f"balanced minus linear ρ={rhos[-1]:g}, baseline, within ±{MARGIN}", loss, MARGIN)]
    for rho in rhos:
        gain = difference(study.get("linear", rho, None, "ros"), study.get("linear", rho, None, "baseline"))
        checks.append(above(f"ROS minus baseline, linear ρ={rho:g}", gain))
    if len(rhos) > 1:
        drop = difference(
            study.get("linear", rhos[0], None, "rus"), study.get("linear", rhos[-1], None, "rus")
        )
        checks.append(above(f"RUS at linear ρ={rhos[0]:g} minus at ρ={rhos[-1]:g}", drop))
    else:
        checks.append(not_run(_RUS_FALLS))
    return Claim("A5", _A5, checks)


_RUS_FALLS = "RUS at a lower linear ρ minus at a higher"
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
            matched.append(
                above(
                    f"balanced set of the same total (our control) minus baseline at ρ={rho:g} μ={mu:g}", gap
                )
            )
    checks = linear or [not_run("baseline on linear minus on step μ=0.5")]
    checks += matched or [not_run("balanced set of the same total (our control) minus baseline")]
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
        "A7",
        "Thresholding by the original priors raises accuracy, on the baseline or with ROS, and should not be joined with RUS",
        checks,
    )


def a8(study: Study) -> Claim:
    partial = {
        kind: [name for name in study.methods() if name.startswith(f"{kind}:")] for kind in ("ros", "rus")
    }
    checks, moderate = [], []
    for rho, mu in step_cells(study):
        base, over, under = (study.get("step", rho, mu, name) for name in ("baseline", "ros", "rus"))
        place = f"ρ={rho:g} μ={mu:g}"
        for name in partial["ros"]:
            if part := study.get("step", rho, mu, name):
                checks.append(above(f"{name} minus baseline at {place}", difference(part, base)))
                checks.append(
                    above(
                        f"full ROS minus {name} at {place}, above −{MARGIN}", difference(over, part), -MARGIN
                    )
                )
        gains = []
        for name in partial["rus"]:
            if part := study.get("step", rho, mu, name):
                against = difference(part, base), difference(part, under)
                gains.append(
                    {
                        seed: min(against[0][seed], against[1][seed])
                        for seed in against[0].keys() & against[1].keys()
                    }
                )
        gains = [gain for gain in gains if gain]
        if gains:
            best = max(gains, key=lambda gain: interval(gain.values()).mean)
            moderate.append(
                above(f"best partial RUS minus the better of baseline and full RUS at {place}", best)
            )
    checks = checks or [not_run("partial ROS minus baseline")]
    value = "; ".join(f"{check.text.split(' at ')[-1]}: {check.value}" for check in moderate)
    some = "some partial RUS beats both its ends at some μ"
    checks.append(
        Check(some, value, any(check.met for check in moderate) or None) if moderate else not_run(some)
    )
    return Claim(
        "A8",
        "Partial ROS always helps and full ROS is best; an intermediate RUS can beat both full RUS and the baseline",
        checks,
    )


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
            grown = {
                seed: growth
                for seed, curve in curves.items()
                if (growth := _late_growth(curve, group)) is not None
            }
            if not grown:
                checks.append(Check(text, "too few points on the curves", None))
                continue
            checks.append(below(text, grown, 2 * MARGIN))
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
