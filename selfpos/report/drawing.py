"""The style of all figures: colours, axes, and how they become SVG text, PNG bytes or files."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# One colour and mark per role, readable on white and on dark grey and for the colour-blind (Okabe and Ito's
# palette).
COLOURS = {
    "base": "#999999",
    "specialist": "#56B4E9",
    "iterative": "#0072B2",
    "bagging": "#CC79A7",
    "joint": "#E69F00",
    "merge": "#009E73",
    "positioned": "#D55E00",
}
MARKERS = dict(zip(COLOURS, "s^>vDo*", strict=True))
LINES = ["#2B8CC4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442"]
SCALE = 1.15  # of a figure on a page, at most: text has one size in all of them
GREY = "#5f6771"  # of axes and text; SVG replaces it by the page's own colour


def plots(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of `width` × `height` inches and its axes, one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, squeeze=False, sharex=True).ravel())
    for panel in axes:
        panel.tick_params(colors=GREY, labelsize=9)
        for label in (panel.xaxis.label, panel.yaxis.label, panel.title):
            label.set_color(GREY)
        for side, spine in panel.spines.items():
            spine.set_color(GREY)
            spine.set_alpha(0.4)
            spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def plot(width: float, height: float) -> tuple[Figure, Any]:
    """A figure of one plot."""
    figure, (axes,) = plots(width, height)
    return figure, axes


def mark(axes: Any, x: float, y: float, role: str) -> None:
    """The mark of a model of `role`; positioned ones are larger."""
    axes.plot([x], [y], MARKERS[role], color=COLOURS[role], markersize=11 if role == "positioned" else 8)


def matrix(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
    *,
    colours: str,
    low: float,
    high: float,
) -> Figure:
    """A heat map (rows, columns) with a text in every field; NaN has no colour."""
    import numpy as np
    from matplotlib import colormaps

    table = np.ma.masked_invalid(np.array(values, dtype=float))
    cells = [text for line in texts for text in line]
    height = 0.34 + 0.13 * max(text.count("\n") for text in cells)
    width = max(0.62, 0.09 * max(map(len, cells)))
    figure, axes = plot(1.2 + 0.085 * max(map(len, rows)) + width * len(columns), 1.2 + height * len(rows))
    axes.imshow(table, cmap=colours, vmin=low, vmax=high, aspect="auto")
    masked = np.ma.getmaskarray(table)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            share = (float(table.filled(0.0)[row, column]) - low) / ((high - low) or 1)
            red, green, blue, _ = colormaps[colours](share)
            light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55  # the brightness that the eye sees
            colour = "#111111" if light else "#ffffff"
            if masked[row, column]:
                colour = GREY
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def spread_out(positions: Sequence[float], gap: float) -> list[float]:
    """`positions` moved apart in their order until neighbours are at least `gap` apart; the mean stays."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = [positions[index] for index in order]
    for _ in range(200):
        crowded = [index for index in range(len(moved) - 1) if moved[index + 1] - moved[index] < gap - 1e-9]
        if not crowded:
            break
        for index in crowded:
            push = (gap - (moved[index + 1] - moved[index])) / 2
            moved[index] -= push
            moved[index + 1] += push
    result = [0.0] * len(positions)
    for position, index in zip(moved, order, strict=True):
        result[index] = position
    return result


def svg(figure: Figure, name: str = "") -> str:
    """The figure as transparent SVG in the page's text colour; ids begin with `name`, else a hash."""
    whole = _save(figure, "svg", transparent=True).decode()
    text = whole[whole.index("<svg") :].replace(GREY, "currentColor")
    widest = round(figure.get_figwidth() * 96 * SCALE)
    sizes = r' width="[\d.]+pt" height="[\d.]+pt"| height="[\d.]+pt" width="[\d.]+pt"'
    text = re.sub(sizes, f' style="max-width: {widest}px"', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    name = name or f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)


def png(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    return _save(figure, "png", dpi=160, facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, as PNG or SVG by its suffix."""
    path.write_bytes(_save(figure, "svg", facecolor="white") if path.suffix == ".svg" else png(figure))


def _save(figure: Figure, form: str, **options: Any) -> bytes:
    import matplotlib as mpl

    out = io.BytesIO()
    # Dates and versions would change the bytes.
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "selfpos", "svg.fonttype": "none"}):
        figure.savefig(out, format=form, metadata=metadata, **options)
    return out.getvalue()
