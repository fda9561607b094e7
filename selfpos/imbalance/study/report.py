"""A study's report: the claims with their verdicts, the table of all settings, and the figures, as Markdown beside PNG files."""

from __future__ import annotations

from pathlib import Path

from selfpos.imbalance.study.analysis import Study, difference, interval
from selfpos.imbalance.study.claims import RULE, Claim, check_claims
from selfpos.imbalance.study.figures import draw_all
from selfpos.imbalance.study.profiles import place_of
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.results import data_of, read_results

MARKS = {True: "met", False: "contradicted", None: "open"}
UNCORRECTED = "contradicted before the correction only"
BESIDE = ("baseline", "ros", "ros-long")
DEAD = 0.505  # an AUC at or below this is guessing


def write_report(results: Path, folder: Path, select: str | None = None) -> list[Claim]:
    """Write report.md and its figures for the results file into `folder`; return the claims. `select` replaces the recipe's choice."""
    records, recipe = read_results(results)
    study = Study(records, select or recipe.select)
    claims = check_claims(study)
    figures = draw_all(study, folder)
    dead = [record for record in records if record["rule"] == "plain" and record["auc"] <= DEAD]
    networks = {(r["profile"], r["rho"], r["mu"], r["method"], r["rate"], r["seed"]) for r in records}
    lines = [f"# {recipe.name}", "", *_setting(recipe, study, data_of(results)), ""]
    lines += [
        f"{len(networks)} networks are recorded, {len(dead)} of them with an AUC of {100 * DEAD:g} or less (guessing); they are counted like all others.",
        "",
    ]
    lines += ["## Claims of the paper", "", RULE, "", "| claim | | verdict |", "|---|---|---|"]
    lines += [
        f"| {claim.name} | {claim.sentence} | {claim.told.replace(claim.verdict, f'**{claim.verdict}**', 1)} |"
        for claim in claims
    ]
    for claim in claims:
        lines += ["", f"### {claim.name}: {claim.verdict}", ""]
        if claim.uncorrected:
            lines += [
                f"{UNCORRECTED.capitalize()}: {'; '.join(f'{check.text} ({check.value})' for check in claim.uncorrected)}.",
                "",
            ]
        lines += ["| check | mean [95 % over seeds] | |", "|---|---|---|"]
        lines += [
            f"| {check.text} | {check.value} | {UNCORRECTED if check in claim.uncorrected else MARKS[check.met]} |"
            for check in claim.checks
        ]
    lines += ["", "## All settings", "", *_table(study), "", "## Differences", "", *_differences(study), ""]
    lines += [f"![{path.stem}]({path.name})" for path in figures]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return claims


def _setting(recipe: ImbalanceRecipe, study: Study, data: str | None) -> list[str]:
    training, noted = recipe.training, f" (SHA-256 {data[:16]}…)" if data else ""
    return [
        f"{recipe.network} on {recipe.data}, or what --data named in its place{noted}; n_max {recipe.n_max}, {training.iterations} iterations of {training.batch_size}, {recipe.seeds} seeds. "
        + _rates(recipe, study)
        + " Differences are paired by seed; intervals are Student's t."
    ]


def _rates(recipe: ImbalanceRecipe, study: Study) -> str:
    by = (
        "by the test score, as the paper did: optimistic, and without intervals"
        if study.select == "test"
        else "on validation"
    )
    training = recipe.training
    searched = {"": training.learning_rates} | (
        {"of adamw ": training.adamw_rates} if "adamw" in study.methods() else {}
    )
    told = [
        whose + " and ".join(f"{rate:g}" for rate in rates) + (f", chosen {by}" if len(rates) > 1 else "")
        for whose, rates in searched.items()
    ]
    return f"Learning rate{'s' * (len(training.learning_rates) > 1)} {'; '.join(told)}."


def _table(study: Study) -> list[str]:
    """Means over seeds."""
    rows = [
        "| setting | method | AUC | accuracy | with thresholding | minority recall | majority recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for profile, rho, mu, method in _cells(study):
        values = [study.get(profile, rho, mu, method, "plain", field) for field in ("auc", "accuracy")]
        values += [study.get(profile, rho, mu, method, "original", "accuracy")]
        values += [study.get(profile, rho, mu, method, "plain", field) for field in ("minority", "majority")]
        rows.append(
            f"| {place_of(profile, rho, mu)} | {method} | "
            + " | ".join(_cell(list(value.values())) for value in values)
            + " |"
        )
    return rows


def _differences(study: Study) -> list[str]:
    """Each method less those it is to be read beside, where both were run; paired by seed."""
    others = [name for name in BESIDE if name in study.methods()]
    columns = [(other, field) for other in others for field in ("auc", "balanced_accuracy")]
    told = [f"{'AUC' if field == 'auc' else 'balanced accuracy'} less {other}" for other, field in columns]
    rows = [f"| setting | method | {' | '.join(told)} |", "|---" * (2 + len(told)) + "|"]
    for profile, rho, mu, method in _cells(study):
        ours = {
            field: study.get(profile, rho, mu, method, "plain", field)
            for field in ("auc", "balanced_accuracy")
        }
        gaps = [
            {}
            if other == method
            else difference(ours[field], study.get(profile, rho, mu, other, "plain", field))
            for other, field in columns
        ]
        if any(gaps):
            rows.append(
                f"| {place_of(profile, rho, mu)} | {method} | "
                + " | ".join(_cell(list(gap.values())) for gap in gaps)
                + " |"
            )
    return rows


def _cells(study: Study) -> list[tuple[str, float, float | None, str]]:
    """Profile, ρ, μ and method of all that was run, in order."""
    ordered = sorted(study.cells, key=lambda cell: (cell[0], cell[1], cell[2] or 0.0, cell[3]))
    return [(profile, rho, mu, method) for profile, rho, mu, method, rule in ordered if rule == "plain"]


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    found = interval(values)
    return f"{found.mean:.2f}" if found.n < 2 else f"{found.mean:.2f} ± {found.high - found.mean:.2f}"
