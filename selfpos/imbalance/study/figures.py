"""The paper's figures 3 to 8, drawn from a study's records.

Each returns False where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.imbalance.study.analysis import Step, Study, Values, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    import matplotlib as mpl
    from matplotlib.figure import Figure

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
    known = [(x, interval(values.values())) for x, values in points if values]
    if not known:
        return False
    xs, means = zip(*known, strict=True)
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
    """Lines over ρ, for step imbalance in a panel per share of minority classes."""
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


def step_auc(study: Study, figure: Figure) -> bool:
    """Figure 3: AUC over ρ for step imbalance."""
    return _over_rho(study, figure, "step", PLAIN)


def linear_auc(study: Study, figure: Figure) -> bool:
    """Figure 4: AUC over ρ for linear imbalance."""
    return _over_rho(study, figure, "linear", PLAIN)


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
    every = [Step(study, *cell) for cell in product(study.axis("step", "rho"), study.axis("step", "mu"))]
    steps = [step for step in every if any(step.get(name) for name in names)]
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
    "figure-3-step": step_auc,
    "figure-4-linear": linear_auc,
    "figure-5-same-total": same_total,
    "figure-6-thresholding": thresholding,
    "figure-7-partial": partial_sampling,
    "figure-8-curves": curves,
}
