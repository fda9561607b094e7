"""A study's report: claims with their verdicts, tables of all settings, and figures 3 to 8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selfpos.console import markdown_table
from selfpos.imbalance.study.analysis import Step, Study, Values, difference, interval
from selfpos.imbalance.study.claims import RULE, Claim, check_claims
from selfpos.imbalance.study.results import data_of, read_results
from selfpos.imbalance.study.sampling import setting_name

MARKS = {True: "met", False: "contradicted", None: "open"}
UNCORRECTED = "contradicted before the correction only"
CONTROLS = ("baseline", "ros", "ros-long")  # the methods that the others are compared with
GUESSING = 0.505  # an AUC at or below this is that of a network that guesses


def write_report(results: Path, folder: Path) -> list[Claim]:
    """Write report.md and its figures for the results file into `folder`."""
    records, recipe = read_results(results)
    study = Study(records, recipe.select)
    claims = check_claims(study)
    searched = {"": recipe.training.learning_rates}
    if "adamw" in study.methods():
        searched["of adamw "] = recipe.training.adamw_rates
    networks = {(r["profile"], r["rho"], r["mu"], r["method"], r["rate"], r["seed"]) for r in records}
    loader = PackageLoader("selfpos.imbalance.study")
    pages = Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)
    text = pages.get_template("report.md.j2").render(
        recipe=recipe,
        data=data_of(results),
        searched=searched,
        select=study.select,
        networks=len(networks),
        dead=sum(record["rule"] == "plain" and record["auc"] <= GUESSING for record in records),
        guessing=GUESSING,
        rule=RULE,
        claims=claims,
        claims_table=_claims_table(claims),
        checks_table=_checks_table,
        uncorrected=UNCORRECTED,
        means=_means(study),
        differences=_differences(study),
        figures=draw_all(study, folder),
    )
    (folder / "report.md").write_text(text, encoding="utf-8")
    return claims


def _claims_table(claims: list[Claim]) -> str:
    rows = [
        [claim.name, claim.sentence, claim.summary.replace(claim.verdict, f"**{claim.verdict}**", 1)]
        for claim in claims
    ]
    return _table(["claim", "", "verdict"], rows)


def _checks_table(claim: Claim) -> str:
    rows = []
    for check in claim.checks:
        mark = UNCORRECTED if check in claim.uncorrected else MARKS[check.met]
        rows.append([check.text, check.value, mark])
    return _table(["check", "mean [95 % over seeds]", ""], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A table with an empty header cell of one space, as in the published reports."""
    return markdown_table(header, rows).replace("|  |", "| |")


def _means(study: Study) -> str:
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
    header = ["setting", "method", *(f"{name} less {control}" for name, control in columns)]
    rows = []
    for cell in _cells(study):
        gaps: list[dict[int, float]] = []
        for name, control in columns:
            ours = study.get(*cell, "plain", fields[name])
            theirs = study.get(*cell[:3], control, "plain", fields[name])
            gaps.append({} if control == cell[3] else difference(ours, theirs))
        if any(gaps):
            rows.append([setting_name(*cell[:3]), cell[3], *(_cell(gap.values()) for gap in gaps)])
    return markdown_table(header, rows)


def _cells(study: Study) -> list[tuple[str, float, float | None, str]]:
    """Profile, ρ, μ and method of all that was run, in order."""
    ordered = sorted(study.cells, key=lambda cell: (cell[0], cell[1], cell[2] or 0.0, cell[3]))
    return [(profile, rho, mu, method) for profile, rho, mu, method, rule in ordered if rule == "plain"]


def _cell(values: Iterable[float]) -> str:
    mean = interval(values)
    if not mean.n:
        return "–"
    return f"{mean.mean:.2f}" if mean.n < 2 else f"{mean.mean:.2f} ± {mean.high - mean.mean:.2f}"


COLOURS = {
    "baseline": "#444444",
    "ros": "#0072b2",
    "rus": "#d55e00",
    "two-phase-ros": "#56b4e9",
    "two-phase-rus": "#e69f00",
}
STYLE = {"figure.dpi": 120, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
AUC = "multi-class ROC AUC × 100"


def draw_all(study: Study, folder: Path) -> list[Path]:
    """Write every figure that the study has data for into `folder` as PNG; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(STYLE):
        for name, draw in FIGURES.items():
            figure = Figure(layout="constrained")
            if draw(study, figure):
                written.append(folder / f"{name}.png")
                figure.savefig(written[-1])
    return written


def _line(axes: Axes, points: Iterable[tuple[float, Values]], label: str, **style: Any) -> bool:
    """A line through the means, with 95 % intervals from three seeds on; False when there is no point."""
    summarised = [(x, interval(values.values())) for x, values in points if values]
    if not summarised:
        return False
    xs, means = zip(*summarised, strict=True)
    (line,) = axes.plot(xs, [mean.mean for mean in means], marker="o", markersize=3, label=label, **style)
    if all(mean.n > 2 for mean in means):
        low, high = [mean.low for mean in means], [mean.high for mean in means]
        axes.fill_between(xs, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    return True


def _legend(figure: Figure) -> None:
    """One legend for all panels, of which some may lack a line."""
    handles: dict[str, Any] = {}
    for panel in figure.axes:
        lines, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)


def _panels(figure: Figure, titles: list[str]) -> list[Axes]:
    figure.set_size_inches(3.2 * len(titles) + 1.8, 3.2)  # the legend stands beside the panels
    axes = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title)
    return list(axes)


Lines = Mapping[str, tuple[str, str, dict[str, str]]]  # label → method, decision rule, style


def _over_rho(
    study: Study, figure: Figure, profile: str, lines: Lines, field: str = "auc", label: str = AUC
) -> bool:
    """Lines over ρ (figures 3, 4 and 6), for step imbalance in a panel per share of minority classes."""
    rhos = study.axis(profile, "rho")
    shares: list[float | None] = [*study.axis("step", "mu")] if profile == "step" else [None]
    if not rhos:
        return False
    titles = ["linear imbalance" if mu is None else f"step, μ = {mu:g}" for mu in shares]
    axes, drawn = _panels(figure, titles), False
    for panel, mu in zip(axes, shares, strict=True):
        for name, (method, rule, style) in lines.items():
            points = [(rho, study.get(profile, rho, mu, method, rule, field)) for rho in rhos]
            drawn |= _line(panel, points, name, **style)
        panel.set(xscale="log", xlabel="ρ")
    axes[0].set_ylabel(label)
    _legend(figure)
    return drawn


PLAIN: Lines = {method: (method, "plain", {"color": colour}) for method, colour in COLOURS.items()}


def same_total(study: Study, figure: Figure) -> bool:
    """Figure 5: step (μ = 0.5) and linear imbalance of equal totals, and our balanced control."""
    rhos = [rho for rho in study.axis("linear", "rho") if study.get("step", rho, 0.5, "baseline")]
    if not rhos:
        return False
    (panel,) = _panels(figure, ["baseline, equal totals"])
    lines = {
        "linear": [study.get("linear", rho, None, "baseline") for rho in rhos],
        "step, μ = 0.5": [study.get("step", rho, 0.5, "baseline") for rho in rhos],
        "balanced (control)": [study.get("step", rho, 0.5, "size-matched") for rho in rhos],
    }
    for label, values in lines.items():
        _line(panel, zip(rhos, values, strict=True), label)
    panel.set(xscale="log", xlabel="ρ", ylabel=AUC)
    _legend(figure)
    return any(lines["linear"])


def thresholding(study: Study, figure: Figure) -> bool:
    """Figure 6: accuracy with (full) and without (dashed) thresholding by the original priors."""
    lines = {}
    for method in ("baseline", "ros", "rus"):
        for rule, dash, suffix in (("plain", "--", ""), ("original", "-", " + thresholding")):
            lines[method + suffix] = (method, rule, {"color": COLOURS[method], "linestyle": dash})
    return _over_rho(study, figure, "step", lines, "accuracy", "test accuracy, %")


def partial_sampling(study: Study, figure: Figure) -> bool:
    """Figure 7: AUC over the ratio after sampling; the right end is the baseline, 1 is full balance."""
    names = [name for name in study.methods() if ":" in name]
    all_steps = [Step(study, *cell) for cell in product(study.axis("step", "rho"), study.axis("step", "mu"))]
    steps = [step for step in all_steps if any(step.get(name) for name in names)]
    if not steps:
        return False
    axes = _panels(figure, [f"ρ = {step.rho:g}, μ = {step.mu:g}" for step in steps])
    for panel, step in zip(axes, steps, strict=True):
        for kind in ("ros", "rus"):
            ratios = {1.0: kind, step.rho: "baseline"}
            ratios |= {float(name.partition(":")[2]): name for name in names if name.startswith(f"{kind}:")}
            points = [(ratio, step.get(name)) for ratio, name in sorted(ratios.items())]
            _line(panel, points, kind, color=COLOURS[kind])
        panel.set(xscale="log", xlabel="ratio after sampling")
    axes[0].set_ylabel(AUC)
    _legend(figure)
    return True


def curves(study: Study, figure: Figure) -> bool:
    """Figure 8: recall on training (dashed) and test images by iteration, at the largest ρ with curves."""
    curves_at: dict[tuple[float, float], dict[str, list]] = {}
    for (profile, rho, mu, method, rule), records in study.cells.items():
        seeds = [record["curve"] for record in records.values() if record["curve"]]
        if (profile, rule) == ("step", "plain") and seeds:
            curves_at.setdefault((rho, mu), {})[method] = seeds
    if not curves_at:
        return False
    rho, mu = max(curves_at, key=lambda cell: (cell[0], -abs(cell[1] - 0.5)))
    shown = [method for method in ("baseline", "ros", "rus") if method in curves_at[rho, mu]]
    if not shown:
        return False
    axes = _panels(figure, [f"{method}, ρ = {rho:g}, μ = {mu:g}" for method in shown])
    for panel, method in zip(axes, shown, strict=True):
        seeds = curves_at[rho, mu][method]
        iterations = [point["iteration"] for point in seeds[0]]
        for split, dash in (("train", "--"), ("test", "-")):
            for group, colour in (("majority", "#009e73"), ("minority", "#cc79a7")):
                values = [[100 * point[f"{split}_{group}"] for point in curve] for curve in seeds]
                label = f"{split}, {group}"
                panel.plot(iterations, np.mean(values, axis=0), dash, color=colour, label=label)
        panel.set(xlabel="iteration", ylabel="mean recall, %")
    _legend(figure)
    return True


FIGURES: dict[str, Callable[[Study, Figure], bool]] = {
    "figure-3-step": partial(_over_rho, profile="step", lines=PLAIN),
    "figure-4-linear": partial(_over_rho, profile="linear", lines=PLAIN),
    "figure-5-same-total": same_total,
    "figure-6-thresholding": thresholding,
    "figure-7-partial": partial_sampling,
    "figure-8-curves": curves,
}
