"""What all figures share: colours, axes, and their way to SVG text or a file."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One colour per role, readable on white and on dark grey alike, and told apart by the colour-blind (Okabe and Ito's palette).
COLOURS = {
    "base": "#999999", "specialist": "#56B4E9", "iterative": "#0072B2", "bagging": "#CC79A7", "joint": "#E69F00", "merge": "#009E73",
    "positioned": "#D55E00",
}  # fmt: skip
MARKERS = {
    "base": "s",
    "specialist": "^",
    "iterative": ">",
    "bagging": "v",
    "joint": "D",
    "merge": "o",
    "positioned": "*",
}
LINES = ["#2B8CC4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442"]
SCALE = 1.15  # of a figure on a page, at most: so that text has one size in all of them
GREY = "#5f6771"  # of axes and text; in SVG it gives way to the page's own ink


def plots(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Any]]:
    """A figure of `width` × `height` inches and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).ravel())
    for one in axes:
        one.tick_params(colors=GREY, labelsize=9)
        for label in (one.xaxis.label, one.yaxis.label, one.title):
            label.set_color(GREY)
        for side, spine in one.spines.items():
            spine.set_color(GREY)
            spine.set_alpha(0.4)
            spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def plot(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of one plot."""
    figure, (axes,) = plots(width, height)
    return figure, axes


def matrix(
    values: Any,
    rows: list[str],
    columns: list[str],
    texts: list[list[str]],
    *,
    colours: str,
    low: float,
    high: float,
) -> Figure:
    """A heat map (rows, columns) with a text in every field, dark or light as the field wants it; where a value is NaN, no colour."""
    import numpy as np
    from matplotlib import colormaps

    table = np.ma.masked_invalid(np.array(values, dtype=float))
    height = 0.34 + 0.13 * max(text.count("\n") for line in texts for text in line)
    figure, axes = plot(
        1.2
        + 0.085 * max(map(len, rows))
        + max(0.62, 0.09 * max(len(t) for line in texts for t in line)) * len(columns),
        1.2 + height * len(rows),
    )
    axes.imshow(table, cmap=colours, vmin=low, vmax=high, aspect="auto")
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            empty = bool(np.ma.getmaskarray(table)[row, column])
            red, green, blue, _ = colormaps[colours](
                (float(table.filled(0.0)[row, column]) - low) / ((high - low) or 1)
            )
            light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=8,
                color=GREY if empty else "#111111" if light else "#ffffff",
            )
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def spread_out(places: list[float], gap: float) -> list[float]:
    """The `places` moved apart, in their order, so that neighbours are at least `gap` from each other and the mean stays."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [places[index] for index in order]
    for _ in range(200):
        crowded = [index for index in range(len(moved) - 1) if moved[index + 1] - moved[index] < gap - 1e-9]
        if not crowded:
            break
        for index in crowded:
            push = (gap - (moved[index + 1] - moved[index])) / 2
            moved[index] -= push
            moved[index + 1] += push
    back = [0.0] * len(places)
    for place, index in enumerate(order):
        back[index] = moved[place]
    return back


def svg(figure: Figure, name: str = "") -> str:
    """The figure as an SVG element for a page: transparent, its text in the colour of the page, its ids begun with `name` (or a hash of it), equal bytes for equal figures."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "selfpos", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    found = text.getvalue()[text.getvalue().index("<svg") :].replace(GREY, "currentColor")
    widest = round(figure.get_figwidth() * 96 * SCALE)
    found = re.sub(
        r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt" width="[\d.]+pt"',
        f' style="max-width: {widest}px"',
        found,
        count=1,
    )
    found = re.sub(
        r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL
    )  # holds addresses, and says only that matplotlib drew it
    name = name or f"f{hashlib.sha256(found.encode()).hexdigest()[:8]}"
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", found)


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, as PNG or SVG by its suffix."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "selfpos", "svg.fonttype": "none"}):
        figure.savefig(
            path,
            dpi=160,
            facecolor="white",
            metadata={"Date": None} if path.suffix == ".svg" else {"Software": None},
        )
