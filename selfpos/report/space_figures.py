"""Figures of the space that the task vectors span: norms and angles, the loss over a plane of it, and where gradients conflict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from selfpos.report.drawing import COLOURS, GREY, MARKERS, matrix, plots
from selfpos.report.results import RunResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def angles(results: RunResults) -> Figure:
    """Angles between the task vectors in degrees, coloured by how far they are from 90°, and their norms on the diagonal."""
    import numpy as np

    from selfpos.vectors import norms_and_cosines

    norms, cosines = norms_and_cosines(np.array(results.gram))
    degrees = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    texts = [[f"{value:.1f}°" for value in row] for row in degrees]
    for place, norm in enumerate(norms):
        texts[place][place] = f"‖V‖\n{norm:.3g}"
    np.fill_diagonal(degrees, np.nan)
    reach = max(10.0, float(np.nanmax(np.abs(degrees - 90), initial=0.0)))
    return matrix(
        degrees, results.vectors, results.vectors, texts, colours="RdBu", low=90 - reach, high=90 + reach
    )


def _labels_aside(places: Mapping[str, tuple[float, float]], width: float) -> dict[str, tuple[float, float]]:
    """Where to put each label beside its mark, in points: the direction that is farthest from the other marks and the labels put before. `width` is
    that of the plot, of about 270 points."""
    points = {name: (270 * x / width, 270 * y / width) for name, (x, y) in places.items()}
    taken = list(points.values())
    found = {}
    for name, (x, y) in points.items():
        around = [(9, 6), (-13, 6), (9, -12), (-13, -12), (-3, 11), (-3, -17)]
        others = [place for place in taken if place != (x, y)]
        best = max(
            around,
            key=lambda d: min(((x + d[0] - a) ** 2 + (y + d[1] - b) ** 2 for a, b in others), default=0.0),
        )
        found[name] = (float(best[0]), float(best[1]))
        taken.append((x + best[0], y + best[1]))
    return found


def landscape(results: RunResults, found: Mapping[str, Any]) -> Figure:
    """The mean over tasks of the probe loss, each divided by the base's, over the plane of two vectors; and on it every model's projection.

    A model that lies far outside of the plane is drawn faint: the loss below it is not its own.
    """
    import numpy as np

    axis = np.array(found["axis"])
    rows = found["losses"]
    tasks = list(rows[0][0])
    losses = np.array([[[point[task] for task in tasks] for point in row] for row in rows])
    # the base lies between grid points: its loss is read off by linear interpolation
    unit = [
        float(np.interp(0.0, axis[: len(rows)], [np.interp(0.0, axis, row) for row in losses[:, :, place]]))
        for place in range(len(tasks))
    ]
    mean = (losses / np.array(unit)).mean(2)
    figure, (axes, key) = plots(7.4, 5.0, 1, 2, width_ratios=[4, 1.5])
    levels = np.quantile(mean, np.linspace(0, 1, 15))
    levels = np.unique(np.round(levels, 6))
    if len(rows) > 1 and len(levels) > 2:
        filled = axes.contourf(axis, axis[: len(rows)], mean, levels=levels, cmap="viridis_r", alpha=0.9)
        lines = axes.contour(
            axis, axis[: len(rows)], mean, levels=levels[::2], colors="#ffffff", linewidths=0.6, alpha=0.7
        )
        axes.clabel(lines, fmt="%.2f", fontsize=7, colors="#ffffff")
        del filled
    best = np.unravel_index(int(mean.argmin()), mean.shape)
    axes.plot(axis[best[1]], axis[best[0]], "x", color="#ffffff", markersize=9, markeredgewidth=2, zorder=5)
    names = [
        name for name in found["models"] if name in ("base", *results.recipe.trained, *results.recipe.merges)
    ]
    aside = _labels_aside(
        {name: (found["models"][name]["x"], found["models"][name]["y"]) for name in names},
        float(axis[-1] - axis[0]),
    )
    key.set_axis_off()
    entries = [*names, "least on the grid"]
    for place, name in enumerate(entries):
        height = 1 - (place + 0.5) / max(12, len(entries))
        if name == entries[-1]:
            key.plot([0.04], [height], "x", color=GREY, markersize=8, markeredgewidth=2)
            key.text(0.14, height, f"{name} ({mean.min():.3f})", va="center", fontsize=8, color=GREY)
            continue
        spot, role = found["models"][name], results.kind(name)
        style = {
            "color": COLOURS[role],
            "markersize": 12 if role == "positioned" else 8,
            "markeredgecolor": "#111111",
            "markeredgewidth": 0.7,
        }
        faint = 0.6 if spot["outside"] > 0.5 else 1.0
        axes.plot(spot["x"], spot["y"], MARKERS[role], alpha=faint, zorder=6, **style)
        axes.annotate(str(place + 1), (spot["x"], spot["y"]), xytext=aside[name], textcoords="offset points", fontsize=7.5, color="#111111",
                      bbox={"boxstyle": "round,pad=0.12", "facecolor": "#ffffff", "alpha": 0.75, "linewidth": 0}, zorder=7)  # fmt: skip
        key.plot([0.04], [height], MARKERS[role], alpha=faint, **style)
        outside = f", {100 * spot['outside']:.0f} % outside" if spot["outside"] > 0.005 else ""
        key.text(0.14, height, f"{place + 1} {name}{outside}", va="center", fontsize=8, color=GREY)
    key.set(xlim=(0, 1), ylim=(0, 1))
    reach = [found["models"][name] for name in names]
    low, high = float(axis[0]), float(axis[-1])
    axes.set_xlim(
        min(low, *(spot["x"] - 0.05 for spot in reach)), max(high, *(spot["x"] + 0.05 for spot in reach))
    )
    axes.set_ylim(
        min(low, *(spot["y"] - 0.05 for spot in reach)), max(high, *(spot["y"] + 0.05 for spot in reach))
    )
    axes.set_xlabel(f"coefficient of {found['pair'][0]}")
    axes.set_ylabel(f"coefficient of {found['pair'][1]}")
    return figure
