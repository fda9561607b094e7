"""The paper's figures 3 to 8, drawn from a study's records. Each returns False where the study has nothing to draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.imbalance.study.analysis import Study, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = {
    "baseline": "#444444", "ros": "#0072b2", "rus": "#d55e00", "two-phase-ros": "#56b4e9", "two-phase-rus": "#e69f00",
}  # fmt: skip
Point = tuple[float, Mapping[int, float]]


def draw_all(study: Study, folder: Path) -> list[Path]:
    """Write every figure the study has data for into `folder` as PNG; return their paths."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(
        {"figure.dpi": 120, "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    ):
        for name, draw in FIGURES.items():
            figure = Figure(layout="constrained")
            if draw(study, figure):
                figure.savefig(folder / f"{name}.png")
                written.append(folder / f"{name}.png")
    return written


def _line(axes: Axes, points: Iterable[Point], label: str, **style: Any) -> bool:
    """A line through the means with a band of the 95 % intervals (from three seeds on); False when there is no point."""
    found = [(x, interval(values.values())) for x, values in points if values]
    if not found:
        return False
    xs = [x for x, _ in found]
    (line,) = axes.plot(
        xs, [value.mean for _, value in found], marker="o", markersize=3, label=label, **style
    )
    if all(value.n > 2 for _, value in found):
        axes.fill_between(
            xs,
            [v.low for _, v in found],
            [v.high for _, v in found],
            alpha=0.15,
            color=line.get_color(),
            linewidth=0,
        )
    return True


def _legend(figure: Figure) -> None:
    """One for all panels, some of which may lack a line that others have."""
    handles = {
        label: handle
        for panel in figure.axes
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)


def _panels(figure: Figure, titles: list[str]) -> list[Axes]:
    figure.set_size_inches(3.2 * len(titles) + 1.8, 3.2)  # the legend stands beside the panels
    axes = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title)
    return list(axes)


def step_auc(study: Study, figure: Figure) -> bool:
    """Figure 3: AUC over ρ for step imbalance, a panel per share of minority classes."""
    mus, rhos = study.axis("step", "mu"), study.axis("step", "rho")
    if not mus:
        return False
    axes, drawn = _panels(figure, [f"step, μ = {mu:g}" for mu in mus]), False
    for panel, mu in zip(axes, mus, strict=True):
        for method, color in METHODS.items():
            drawn |= _line(
                panel, [(rho, study.get("step", rho, mu, method)) for rho in rhos], method, color=color
            )
        panel.set(xscale="log", xlabel="ρ")
    axes[0].set_ylabel("multi-class ROC AUC × 100")
    _legend(figure)
    return drawn


def linear_auc(study: Study, figure: Figure) -> bool:
    """Figure 4: AUC over ρ for linear imbalance."""
    rhos = study.axis("linear", "rho")
    if not rhos:
        return False
    (panel,) = _panels(figure, ["linear imbalance"])
    drawn = [
        _line(panel, [(r, study.get("linear", r, None, m)) for r in rhos], m, color=c)
        for m, c in METHODS.items()
    ]
    panel.set(xscale="log", xlabel="ρ", ylabel="multi-class ROC AUC × 100")
    _legend(figure)
    return any(drawn)


def same_total(study: Study, figure: Figure) -> bool:
    """Figure 5: step (μ = 0.5) and linear imbalance with the same number of examples, and our balanced control of that number."""
    rhos = [rho for rho in study.axis("linear", "rho") if study.get("step", rho, 0.5, "baseline")]
    if not rhos:
        return False
    (panel,) = _panels(figure, ["baseline, equal totals"])
    drawn = [
        _line(panel, [(r, study.get("linear", r, None, "baseline")) for r in rhos], "linear"),
        _line(panel, [(r, study.get("step", r, 0.5, "baseline")) for r in rhos], "step, μ = 0.5"),
        _line(panel, [(r, study.get("step", r, 0.5, "size-matched")) for r in rhos], "balanced (control)"),
    ]
    panel.set(xscale="log", xlabel="ρ", ylabel="multi-class ROC AUC × 100")
    _legend(figure)
    return all(drawn[:2])


def thresholding(study: Study, figure: Figure) -> bool:
    """Figure 6: accuracy with (full) and without (dashed) thresholding by the original priors."""
    mus, rhos = study.axis("step", "mu"), study.axis("step", "rho")
    if not mus:
        return False
    axes, drawn = _panels(figure, [f"step, μ = {mu:g}" for mu in mus]), False
    for panel, mu in zip(axes, mus, strict=True):
        for method in ("baseline", "ros", "rus"):
            for rule, dash in (("plain", "--"), ("original", "-")):
                points = [(rho, study.get("step", rho, mu, method, rule, "accuracy")) for rho in rhos]
                label = method if rule == "plain" else f"{method} + thresholding"
                drawn |= _line(panel, points, label, color=METHODS[method], linestyle=dash)
        panel.set(xscale="log", xlabel="ρ")
    axes[0].set_ylabel("test accuracy, %")
    _legend(figure)
    return drawn


def partial_sampling(study: Study, figure: Figure) -> bool:
    """Figure 7: AUC over the ratio that is left after sampling; the right end is the baseline, 1 is full balance."""
    names = [name for name in study.methods() if ":" in name]
    places = [
        (rho, mu)
        for rho in study.axis("step", "rho")
        for mu in study.axis("step", "mu")
        if any(study.get("step", rho, mu, n) for n in names)
    ]
    if not places:
        return False
    axes = _panels(figure, [f"ρ = {rho:g}, μ = {mu:g}" for rho, mu in places])
    for panel, (rho, mu) in zip(axes, places, strict=True):
        for kind in ("ros", "rus"):
            points: list[Point] = [
                (1.0, study.get("step", rho, mu, kind)),
                (rho, study.get("step", rho, mu, "baseline")),
            ]
            points += [
                (float(n.partition(":")[2]), study.get("step", rho, mu, n))
                for n in names
                if n.startswith(f"{kind}:")
            ]
            _line(panel, sorted(points, key=lambda point: point[0]), kind, color=METHODS[kind])
        panel.set(xscale="log", xlabel="ratio after sampling")
    axes[0].set_ylabel("multi-class ROC AUC × 100")
    _legend(figure)
    return True


def curves(study: Study, figure: Figure) -> bool:
    """Figure 8: balanced accuracy on training (dashed) and test images over the iterations, at the largest ρ with curves; mean over seeds."""
    cells = [
        cell
        for cell, seeds in study.cells.items()
        if cell[0] == "step" and any(record["curve"] for record in seeds.values())
    ]
    if not cells:
        return False
    rho = max(cell[1] for cell in cells)
    mu = min((cell[2] for cell in cells if cell[1] == rho), key=lambda share: abs(share - 0.5))
    methods = [
        method
        for method in ("baseline", "ros", "rus")
        if any(r["curve"] for r in study.seeds_of("step", rho, mu, method).values())
    ]
    if not methods:
        return False
    for panel, method in zip(
        _panels(figure, [f"{method}, ρ = {rho:g}, μ = {mu:g}" for method in methods]), methods, strict=True
    ):
        found = [
            record["curve"] for record in study.seeds_of("step", rho, mu, method).values() if record["curve"]
        ]
        for split, dash in (("train", "--"), ("test", "-")):
            for group, color in (("majority", "#009e73"), ("minority", "#cc79a7")):
                values = np.mean(
                    [[100 * point[f"{split}_{group}"] for point in curve] for curve in found], axis=0
                )
                panel.plot(
                    [point["iteration"] for point in found[0]],
                    values,
                    dash,
                    color=color,
                    label=f"{split}, {group}",
                )
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
