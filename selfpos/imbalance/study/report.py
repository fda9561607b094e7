"""A study's report: the claims with their verdicts, the table of all settings, and the figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from selfpos.console import markdown_table
from selfpos.imbalance.study.analysis import Study, difference, interval
from selfpos.imbalance.study.claims import RULE, Claim, check_claims
from selfpos.imbalance.study.figures import draw_all
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.results import data_of, read_results
from selfpos.imbalance.study.sampling import setting_name

MARKS = {True: "met", False: "contradicted", None: "open"}
UNCORRECTED = "contradicted before the correction only"
CONTROLS = ("baseline", "ros", "ros-long")  # the methods that the others are compared with
DEAD = 0.505  # an AUC at or below this is guessing


def write_report(results: Path, folder: Path, select: str | None = None) -> list[Claim]:
    """Write report.md and its figures for the results file into `folder`; `select` replaces the recipe's."""
    records, recipe = read_results(results)
    study = Study(records, select or recipe.select)
    claims = check_claims(study)
    figures = draw_all(study, folder)
    dead = [record for record in records if record["rule"] == "plain" and record["auc"] <= DEAD]
    networks = {(r["profile"], r["rho"], r["mu"], r["method"], r["rate"], r["seed"]) for r in records}
    verdicts = [
        [claim.name, claim.sentence, claim.summary.replace(claim.verdict, f"**{claim.verdict}**", 1)]
        for claim in claims
    ]
    lines = [
        f"# {recipe.name}",
        "",
        _setting(recipe, study, data_of(results)),
        "",
        f"{len(networks)} networks are recorded, {len(dead)} of them with an AUC of {100 * DEAD:g} or less "
        "(guessing); they are counted like all others.",
        "",
        "## Claims of the paper",
        "",
        RULE,
        "",
        _table(["claim", "", "verdict"], verdicts),
    ]
    for claim in claims:
        lines += ["", f"### {claim.name}: {claim.verdict}", "", *_claim(claim)]
    lines += ["", "## All settings", "", _means(study), "", "## Differences", "", _differences(study), ""]
    lines += [f"![{path.stem}]({path.name})" for path in figures]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return claims


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A table with an empty header cell of one space, as in the published reports."""
    return markdown_table(header, rows).replace("|  |", "| |")


def _claim(claim: Claim) -> list[str]:
    lines = []
    if claim.uncorrected:
        checks = "; ".join(f"{check.text} ({check.value})" for check in claim.uncorrected)
        lines += [f"{UNCORRECTED.capitalize()}: {checks}.", ""]
    rows = []
    for check in claim.checks:
        mark = UNCORRECTED if check in claim.uncorrected else MARKS[check.met]
        rows.append([check.text, check.value, mark])
    return [*lines, _table(["check", "mean [95 % over seeds]", ""], rows)]


def _setting(recipe: ImbalanceRecipe, study: Study, data: str | None) -> str:
    training = recipe.training
    fingerprint = f" (SHA-256 {data[:16]}…)" if data else ""
    chosen = ", chosen on validation"
    if study.select == "test":
        chosen = ", chosen by the test score, as the paper did: optimistic, and without intervals"
    searched = {"": training.learning_rates}
    if "adamw" in study.methods():
        searched["of adamw "] = training.adamw_rates
    rates = [
        optimizer + " and ".join(f"{rate:g}" for rate in values) + (chosen if len(values) > 1 else "")
        for optimizer, values in searched.items()
    ]
    return (
        f"{recipe.network} on {recipe.data}, or what --data named in its place{fingerprint}; n_max "
        f"{recipe.n_max}, {training.iterations} iterations of {training.batch_size}, {recipe.seeds} seeds. "
        f"Learning rate{'s' * (len(training.learning_rates) > 1)} {'; '.join(rates)}. "
        "Differences are paired by seed; intervals are Student's t."
    )


def _means(study: Study) -> str:
    """Means over seeds."""
    columns = {
        "AUC": ("plain", "auc"),
        "accuracy": ("plain", "accuracy"),
        "with thresholding": ("original", "accuracy"),
        "minority recall": ("plain", "minority"),
        "majority recall": ("plain", "majority"),
    }
    rows = []
    for cell in _cells(study):
        values = [study.get(*cell, rule, field).values() for rule, field in columns.values()]
        rows.append([setting_name(*cell[:3]), cell[3], *map(_cell, values)])
    return markdown_table(["setting", "method", *columns], rows)


def _differences(study: Study) -> str:
    """Each method minus the controls, where both were run; paired by seed."""
    fields = {"AUC": "auc", "balanced accuracy": "balanced_accuracy"}
    columns = [(name, control) for control in CONTROLS if control in study.methods() for name in fields]
    rows = []
    for cell in _cells(study):
        gaps: list[dict[int, float]] = []
        for name, control in columns:
            ours, theirs = (
                study.get(*cell[:3], method, "plain", fields[name]) for method in (cell[3], control)
            )
            gaps.append({} if control == cell[3] else difference(ours, theirs))
        if any(gaps):
            rows.append([setting_name(*cell[:3]), cell[3], *(_cell(gap.values()) for gap in gaps)])
    return markdown_table(
        ["setting", "method", *(f"{name} less {control}" for name, control in columns)], rows
    )


def _cells(study: Study) -> list[tuple[str, float, float | None, str]]:
    """Profile, ρ, μ and method of all that was run, in order."""
    ordered = sorted(study.cells, key=lambda cell: (cell[0], cell[1], cell[2] or 0.0, cell[3]))
    return [(profile, rho, mu, method) for profile, rho, mu, method, rule in ordered if rule == "plain"]


def _cell(values: Iterable[float]) -> str:
    mean = interval(values)
    if not mean.n:
        return "–"
    return f"{mean.mean:.2f}" if mean.n < 2 else f"{mean.mean:.2f} ± {mean.high - mean.mean:.2f}"
