"""Verdicts on made-up results whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.imbalance.study import report
from selfpos.imbalance.study.analysis import Study, compare_orderings, interval, p_value
from selfpos.imbalance.study.claims import RULE, Check, Claim, above, check_claims, within
from tests.helpers.companion import record

RHOS, MUS = (10.0, 1000.0), (0.2, 0.5, 0.8)


def study_of(value: Callable[[str, float, float, str], float], noise: float = 0.0005) -> Study:
    """Step results auc = value(method, log10 ρ, μ, rule) with a little noise, 5 seeds."""
    rng = np.random.default_rng(0)
    return Study(
        record(
            method,
            value(method, np.log10(rho), mu, rule) + noise * rng.normal(),
            seed,
            rho=rho,
            mu=mu,
            rule=rule,
        )
        for method in (
            "baseline",
            "ros",
            "rus",
            "two-phase-ros",
            "two-phase-rus",
            "size-matched",
            "ros:100",
            "rus:100",
        )
        for rho in RHOS
        for mu in MUS
        for rule in ("plain", "original")
        for seed in range(5)
    )


def as_the_paper(method: str, strength: float, mu: float, rule: str) -> float:
    baseline = 0.99 - 0.05 * strength * mu
    ros = 0.99 - 0.02 * strength * mu
    rus = 0.93 - 0.01 * strength
    bonus = 0.0 if rule == "plain" else -0.02 if method == "rus" else 0.02
    values = {"baseline": baseline, "ros": ros, "rus": rus, "size-matched": 0.99}
    values |= dict.fromkeys(("two-phase-ros", "ros:100"), (baseline + ros) / 2)
    values |= {"two-phase-rus": (baseline + rus) / 2, "rus:100": max(baseline, rus) + 0.01}
    return values[method] + bonus


def verdicts(study: Study) -> dict[str, str]:
    return {claim.name: claim.verdict for claim in check_claims(study)}


def test_results_like_the_papers_hold() -> None:
    result = verdicts(study_of(as_the_paper))
    assert {name: result[name] for name in ("A1", "A2", "A3", "A4", "A7", "A8")} == dict.fromkeys(
        ("A1", "A2", "A3", "A4", "A7", "A8"), "holds"
    )
    assert result["A5"] == result["A9"] == "not run"  # no linear cells, no curves


def test_opposite_results_do_not_hold() -> None:
    def opposite(method: str, strength: float, mu: float, rule: str) -> float:
        if method.startswith("two-phase"):
            return 0.999
        mirrored = 1.8 - as_the_paper(method, strength, mu, rule)
        return mirrored - (0.3 if method == "ros" else 0)

    result = verdicts(study_of(opposite))
    assert {result[name] for name in ("A1", "A2", "A4", "A7")} == {"does not hold"}


def with_linear(step: Study, baseline: float, ros: float = 0.995, rus_fall: float = 0.05) -> Study:
    """`step` with a balanced baseline of .99 and linear imbalances: baseline, ROS, and RUS that falls by
    `rus_fall` from one ratio to the next.
    """
    rng = np.random.default_rng(1)
    linear = [
        record(method, value + 0.0005 * rng.normal(), seed, profile="linear", rho=rho, mu=None)
        for index, rho in enumerate(RHOS)
        for method, value in (("baseline", baseline), ("ros", ros), ("rus", 0.95 - rus_fall * index))
        for seed in range(5)
    ]
    balanced = [record("baseline", 0.99, seed, profile="balanced", rho=1.0, mu=None) for seed in range(5)]
    return Study([*balanced, *linear, *(own for seeds in step.cells.values() for own in seeds.values())])


def test_linear_imbalance_and_equal_totals() -> None:
    step = study_of(as_the_paper)
    for study, result in (
        (with_linear(step, baseline=0.988), {"A5": "holds", "A6": "holds"}),
        (with_linear(step, baseline=0.5), {"A5": "does not hold", "A6": "does not hold"}),
        (with_linear(step, baseline=0.988, ros=0.98), {"A5": "does not hold", "A6": "holds"}),
        (with_linear(step, baseline=0.988, rus_fall=-0.05), {"A5": "does not hold", "A6": "holds"}),
    ):
        assert {name: verdicts(study)[name] for name in result} == result
    matched = study_of(
        lambda method, *index: 0.5 if method == "size-matched" else as_the_paper(method, *index)
    )
    assert verdicts(with_linear(matched, baseline=0.988))["A6"] == "does not hold"


def test_undersampling_and_partial_sampling_can_fail() -> None:
    def changed(name: str, value: Callable[[float, float], float]) -> dict[str, str]:
        return verdicts(
            study_of(
                lambda method, strength, mu, rule: (
                    value(strength, mu) if method == name else as_the_paper(method, strength, mu, rule)
                )
            )
        )

    assert changed("rus", lambda strength, mu: 0.93 - 0.1 * mu)["A3"] == "does not hold"  # not flat in μ
    assert changed("rus", lambda strength, mu: 0.999)["A3"] == "does not hold"  # better than ROS
    assert changed("ros:100", lambda strength, mu: 0.5)["A8"] == "does not hold"  # some oversampling harms
    assert changed("ros:100", lambda strength, mu: 0.999)["A8"] == "does not hold"  # full is not best
    assert (
        changed("rus:100", lambda strength, mu: 0.5)["A8"] == "not decided"
    )  # "can beat" is not refuted by some settings


def test_noise_decides_nothing() -> None:
    assert verdicts(study_of(lambda *index: 0.9, noise=0.02))["A1"] == "not decided"
    assert set(verdicts(Study([])).values()) == {"not run"}


def test_one_setting_is_enough_to_contradict() -> None:
    def two_phase_gains_once(method: str, strength: float, mu: float, rule: str) -> float:
        gain = 0.2 if (method, strength, mu) == ("two-phase-rus", 3.0, 0.5) else 0.0
        return as_the_paper(method, strength, mu, rule) + gain

    def two_phase_fails_once(method: str, strength: float, mu: float, rule: str) -> float:
        return (
            0.6
            if (method, strength, mu) == ("two-phase-ros", 1.0, 0.2)
            else as_the_paper(method, strength, mu, rule)
        )

    def thresholded_ros_loses_at_ten(method: str, strength: float, mu: float, rule: str) -> float:
        loss = 0.03 if (method, strength, rule) == ("ros", 1.0, "original") else 0.0
        return as_the_paper(method, strength, mu, rule) - loss

    for value, name in (
        (two_phase_gains_once, "A4"),
        (two_phase_fails_once, "A4"),
        (thresholded_ros_loses_at_ten, "A7"),
    ):
        assert verdicts(study_of(value))[name] == "does not hold"


def test_undersampling_must_lose_by_thresholding() -> None:
    def gains(method: str, strength: float, mu: float, rule: str) -> float:
        return as_the_paper(method, strength, mu, rule) + (
            0.03 if (method, rule) == ("rus", "original") else 0
        )  # and is still behind ROS

    assert verdicts(study_of(gains))["A7"] == "does not hold"


def test_a_sampler_without_two_phase_leaves_it_open() -> None:
    whole = study_of(as_the_paper)
    part = Study(
        record
        for cell, seeds in whole.cells.items()
        if cell[3] != "two-phase-rus"
        for record in seeds.values()
    )
    (claim,) = [claim for claim in check_claims(part) if claim.name == "A4"]
    assert claim.verdict == "not decided"
    assert ("two-phase-rus between its two ends", "not run") in {
        (check.text, check.value) for check in claim.checks
    }


def part_of(study: Study, keep: Callable[[str, float, float | None], bool]) -> Study:
    return Study(
        own
        for (_, rho, mu, method, _), seeds in study.cells.items()
        if keep(method, rho, mu)
        for own in seeds.values()
    )


@pytest.mark.parametrize(
    ("name", "keep", "absent"),
    [
        ("A1", lambda method, rho, mu: mu == 0.5, "baseline AUC falls with μ"),
        ("A1", lambda method, rho, mu: rho == 10, "baseline AUC falls with ρ"),
        ("A2", lambda method, rho, mu: (rho, mu) == (10, 0.5), "settings in which ROS has the best mean AUC"),
        (
            "A2",
            lambda method, rho, mu: method in ("ros", "baseline"),
            "settings in which ROS has the best mean AUC",
        ),
        ("A5", lambda method, rho, mu: rho < 100, "RUS at a lower linear ρ minus at a higher"),
        ("A5", lambda method, rho, mu: method != "rus", "RUS at linear ρ=10 minus at ρ=1000"),
        ("A8", lambda method, rho, mu: method != "rus:100", "some partial RUS beats both its ends at some μ"),
        ("A8", lambda method, rho, mu: method != "ros:100", "partial ROS minus baseline"),
    ],
)
def test_half_a_claim_does_not_hold(
    name: str, keep: Callable[[str, float, float | None], bool], absent: str
) -> None:
    whole = with_linear(study_of(as_the_paper), baseline=0.988)
    assert verdicts(whole)[name] == "holds"
    (claim,) = [claim for claim in check_claims(part_of(whole, keep)) if claim.name == name]
    assert claim.verdict == "not decided"
    assert (absent, "not run") in {(check.text, check.value) for check in claim.checks}


def test_ros_is_beaten_in_more_than_a_fifth_of_the_settings() -> None:
    def rus_wins(*where: tuple[float, float]) -> Claim:
        study = study_of(
            lambda method, strength, mu, rule: (
                0.995
                if method == "rus" and (strength, mu) in where
                else as_the_paper(method, strength, mu, rule)
            )
        )
        return check_claims(study)[1]

    once, twice = rus_wins((1.0, 0.2)), rus_wins((1.0, 0.2), (1.0, 0.5))
    assert [claim.checks[1].value for claim in (once, twice)] == ["5 of 6", "4 of 6"]
    assert (once.checks[1].met, twice.checks[1].met, twice.verdict) == (True, False, "does not hold")
    # A rival of a hair decides nothing, at however many settings: the second smallest p, of three rivals and
    # five choices, is not small.
    hair = study_of(lambda method, *index: 0.9 + 0.0003 * (method == "rus"), noise=0.0005)
    assert check_claims(hair)[1].verdict == "not decided"


def test_partial_sampling_without_common_seeds_is_passed_over() -> None:
    whole = study_of(as_the_paper)
    strange = [record("rus:10", 0.5, 77, rho=rho, mu=mu) for rho in RHOS for mu in MUS]
    assert (
        verdicts(Study([*strange, *(own for seeds in whole.cells.values() for own in seeds.values())]))["A8"]
        == "holds"
    )


def of_p(*values: float) -> Claim:
    return Claim(
        "A", "", [Check(str(index), "", False if p < 0.05 else None, p) for index, p in enumerate(values)]
    )


@pytest.mark.parametrize(
    ("values", "contradicted", "verdict"),
    [
        ((0.04,), "0", "does not hold"),
        ((0.04, 1.0), "", "not decided"),
        ((0.02, 1.0, 0.01), "02", "does not hold"),
        ((0.04, 0.01, 0.03), "1", "does not hold"),
        ((0.02, 0.02, 0.02), "", "not decided"),
    ],
)
def test_contradictions_are_corrected_for_the_number_of_checks(
    values: tuple[float, ...], contradicted: str, verdict: str
) -> None:
    claim = of_p(*values)
    assert ("".join(check.text for check in claim.contradicted), claim.verdict) == (contradicted, verdict)
    assert len(claim.contradicted) + len(claim.uncorrected) == sum(p < 0.05 for p in values)


def test_true_claims_of_many_checks_are_seldom_contradicted() -> None:
    rng = np.random.default_rng(0)
    result = [
        Claim("A", "", [above("", dict(enumerate(rng.normal(size=5)))) for _ in range(20)])
        for _ in range(200)
    ]
    assert np.mean([any(check.met is False for check in claim.checks) for claim in result]) > 0.3
    assert np.mean([claim.verdict == "does not hold" for claim in result]) < 0.06


def test_the_report_names_what_is_contradicted_before_the_correction_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = Path(__file__).parents[3] / "benchmarks" / "results" / "imbalance_mnist_small.parquet"
    monkeypatch.setattr(report, "draw_all", lambda *_: [])
    claim = report.write_report(published, tmp_path)[3]
    assert (claim.name, claim.verdict) == ("A4", "not decided")
    message = (tmp_path / "report.md").read_text(encoding="utf-8")
    check = "the better of its two ends minus two-phase-rus at ρ=5000 μ=0.5, above −0.5"
    assert f"Contradicted before the correction only: {check} (-3.82 [-5.52, -2.13])." in message
    assert f"| {check} | -3.82 [-5.52, -2.13] | contradicted before the correction only |" in message
    assert RULE in message
    assert "| **not decided** (1 of 48 checks contradicted before the correction only) |" in message


def below(text: str, values: dict[int, float], high: float) -> Check:
    return within(text, values, -np.inf, high)


def both_sides(text: str, values: dict[int, float], margin: float) -> Check:
    return within(text, values, -abs(margin), abs(margin))


def test_p_goes_with_the_interval() -> None:
    from scipy import stats

    values = [1.0, 2.0, 4.0, 4.5]
    assert p_value(values, 0.3) == pytest.approx(stats.ttest_1samp(values, 0.3).pvalue)
    assert p_value(values, interval(values).low) == pytest.approx(0.05)
    assert (p_value([3.0], 0.0), p_value([2.0, 2.0], 2.0), p_value([2.0, 2.0], 1.0)) == (1.0, 1.0, 0.0)
    for made, where in ((above, -1), (below, 1), (both_sides, 1)):
        beyond = made("", {seed: where * (5.0 + 0.1 * seed) for seed in range(5)}, 0.5)
        barely = made("", {seed: where * (0.6 + 0.2 * seed) for seed in range(5)}, 0.5)
        fine = made("", {seed: -where * 0.1 * seed for seed in range(5)}, 0.5 if where > 0 else -0.5)
        assert (beyond.met, barely.met, fine.met) == (False, False, True)
        assert (beyond.p or 0) < 1e-4 < (barely.p or 0) < 0.05
        assert fine.p == 1


def curve(gaps: dict[int, float]) -> list[dict[str, float]]:
    names = [
        f"{split}_{group}" for split in ("train", "test") for group in ("balanced", "minority", "majority")
    ]
    return [
        {"iteration": at} | {name: 0.9 + (gap if name.startswith("train") else 0) for name in names}
        for at, gap in gaps.items()
    ]


def test_gap_growth_is_seen() -> None:
    for growth, verdict in ((0.0, "holds"), (0.02, "does not hold")):
        study = Study(
            record("ros", 0.9, seed, curve=curve({i: growth * i for i in range(4)})) for seed in range(3)
        )
        assert verdicts(study)["A9"] == verdict


def test_gap_growth_is_that_of_the_second_half() -> None:
    late = {100: 0.0, 200: 0.0, 300: 0.0, 400: 0.1, 500: 0.1, 600: 0.1}
    early = {100: 0.0, 200: 0.0, 300: 0.1, 400: 0.1, 500: 0.1, 600: 0.1}
    for gaps, verdict in ((late, "does not hold"), (early, "holds")):
        assert (
            verdicts(Study(record("ros", 0.9, seed, curve=curve(gaps)) for seed in range(3)))["A9"] == verdict
        )
    for short in ({4: 0.0}, {2: 0.0, 4: 0.0}, {500: 0.0, 590: 0.0, 600: 0.0}):
        (*_, claim) = check_claims(Study(record("ros", 0.9, seed, curve=curve(short)) for seed in range(3)))
        assert claim.verdict == "not decided"
        assert {check.value for check in claim.checks} == {"too few points on the curves"}


def test_learning_rates_are_chosen_on_validation_or_test() -> None:
    runs = [
        record("ros", auc, seed, rate=rate, validation_auc=v)
        for rate, auc, v in ((0.1, 0.8, 0.9), (0.01, 0.9, 0.7))
        for seed in range(3)
    ]
    honest, optimistic = Study(runs, "validation"), Study(runs, "test")
    assert list(honest.get("step", 10.0, 0.5, "ros").values()) == pytest.approx([80, 80, 80])
    assert list(optimistic.get("step", 10.0, 0.5, "ros").values()) == pytest.approx([90])


def test_rates_are_not_chosen_on_nothing() -> None:
    runs = [record("ros", auc, 0, rate=rate, validation_auc=None) for rate, auc in ((0.1, 0.4), (0.01, 0.9))]
    with pytest.raises(
        SelfposError, match=r"step ρ=10 μ=0\.5 ros was run at 2 learning rates without validation images"
    ):
        Study(runs, "validation")
    assert list(Study(runs, "test").get("step", 10.0, 0.5, "ros").values()) == pytest.approx([90])
    assert list(Study(runs[:1], "validation").get("step", 10.0, 0.5, "ros").values()) == pytest.approx([40])


def test_orderings_of_two_lengths() -> None:
    short = study_of(as_the_paper)
    (same, *_) = compare_orderings(short, study_of(as_the_paper))
    assert (same.tau, same.reversed_pairs) == (pytest.approx(1.0), [])
    swapped = study_of(
        lambda method, *index: as_the_paper({"ros": "rus", "rus": "ros"}.get(method, method), *index)
    )
    assert all("ros / rus" in one.reversed_pairs and one.tau < 1 for one in compare_orderings(short, swapped))
    assert compare_orderings(short, Study([])) == []
