"""The figures of a run, each a function from results to a matplotlib figure; `svg` and `save` turn one into text or a file."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.report.results import RunResults, Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One colour per role, readable on white and on dark grey alike, and told apart by the colour-blind (Okabe and Ito's palette).
COLOURS = {
    "base": "#999999", "specialist": "#56B4E9", "iterative": "#0072B2", "bagging": "#CC79A7", "joint": "#E69F00", "merge": "#009E73",
    "positioned": "#D55E00",
}  # fmt: skip
LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442"]
GREY = "#808080"  # of axes and text: seen on both backgrounds


def means(results: RunResults) -> Figure:
    """Mean score of every model as a dot, sorted, coloured by its role."""
    found = sorted((mean, model) for model in results.scores if (mean := results.mean(model)) is not None)
    figure, axes = _plot(6.4, 0.9 + 0.3 * len(found))
    for row, (mean, model) in enumerate(found):
        axes.plot([100 * mean], [row], "o", color=COLOURS[results.kind(model)], markersize=8)
        axes.annotate(
            f"{100 * mean:.2f}", (100 * mean, row), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8, color=GREY
        )
    axes.set_yticks(range(len(found)), [model for _, model in found])
    axes.set_xlabel("mean score over all tasks (percent)")
    axes.margins(x=0.12, y=0.08)
    axes.grid(axis="x", alpha=0.3)
    return figure


def coefficient_path(search: Search) -> Figure:
    """Coefficient of each task vector over the steps of the search; below, loss on each task's batches (faint) and held-out records (dots)."""
    figure, (upper, lower) = _plots(6.4, 4.6)
    path = [point for point in search.trajectory if "coefficients" in point]
    judged = [point for point in search.trajectory if "validation" in point]
    steps = [point["step"] for point in path]
    for index, name in enumerate(search.position["names"]):
        upper.plot(steps, [point["coefficients"][index] for point in path], label=name, color=LINES[index % len(LINES)])
    upper.set_ylabel("coefficient")
    upper.legend(frameon=False, fontsize=8, labelcolor=GREY)
    for index, task in enumerate(
        dict.fromkeys(name for point in [*path, {"losses": search.position["losses"]}] for name in point["losses"])
    ):
        colour = LINES[index % len(LINES)]
        lower.plot(
            steps,
            [point["losses"].get(task, math.nan) for point in path],
            color=colour,
            alpha=0.35,
            linewidth=1,
            marker=".",
            label=None if judged else task,
        )
        lower.plot(
            [p["step"] for p in judged], [p["validation"].get(task, math.nan) for p in judged], "o-", markersize=3, color=colour, label=task
        )
    lower.set_ylabel("probe loss")
    lower.set_xlabel("step")
    lower.legend(frameon=False, fontsize=8, labelcolor=GREY)
    for axes in (upper, lower):
        axes.axvline(search.position["step"], color=GREY, linestyle=":", linewidth=1)
        axes.grid(alpha=0.3)
    return figure


def angles(results: RunResults) -> Figure:
    """Angles between the task vectors in degrees, with their norms on the axis."""
    import numpy as np

    from selfpos.vectors.angles import norms_and_cosines

    norms, cosines = norms_and_cosines(np.array(results.gram))
    count = len(results.vectors)
    figure, axes = _plot(1.8 + 0.95 * count, 1.2 + 0.8 * count)
    degrees = [[math.degrees(math.acos(max(-1.0, min(1.0, float(cosines[i][j]))))) for j in range(count)] for i in range(count)]
    axes.imshow(degrees, cmap="RdBu", vmin=0, vmax=180, alpha=0.85)
    for i in range(count):
        for j in range(count):
            axes.text(j, i, f"{degrees[i][j]:.1f}°", ha="center", va="center", fontsize=9, color="#111111")
    axes.set_xticks(range(count), results.vectors, rotation=20, ha="right")
    axes.set_yticks(range(count), [f"{name}\n|V| = {float(norm):.3f}" for name, norm in zip(results.vectors, norms, strict=True)])
    return figure


def heat_map(results: RunResults) -> Figure:
    """Difference of every model to the base on every task, in points of percent."""
    tasks = list(results.tasks)
    models = [model for model in results.scores if model != "base"]
    base = results.scores["base"]
    gain = [[100 * (results.scores[model][task] - base[task]) for task in tasks] for model in models]
    limit = max((abs(value) for row in gain for value in row), default=1) or 1
    figure, axes = _plot(2.2 + 1.15 * len(tasks), 1.4 + 0.34 * len(models))
    axes.imshow(gain, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", alpha=0.9)
    for row, values in enumerate(gain):
        for column, value in enumerate(values):
            axes.text(
                column,
                row,
                f"{value:+.1f}",
                ha="center",
                va="center",
                fontsize=8,
                color="#111111" if abs(value) < 0.6 * limit else "#ffffff",
            )
    axes.set_xticks(range(len(tasks)), tasks, rotation=20, ha="right")
    axes.set_yticks(range(len(models)), models)
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG element, with a transparent background and the same bytes for the same figure."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "selfpos", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, as PNG or SVG by its suffix."""
    figure.savefig(path, dpi=160, facecolor="white")


def _plot(width: float, height: float):  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    _colour(axes)
    return figure, axes


def _plots(width: float, height: float):  # type: ignore[no-untyped-def]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for one in axes:
        _colour(one)
    return figure, axes


def _colour(axes) -> None:  # type: ignore[no-untyped-def]
    axes.tick_params(colors=GREY, labelsize=9)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
        spine.set_alpha(0.4)
