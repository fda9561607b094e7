"""Figures of scores, costs, task vectors and coefficients, and the style of all figures."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.comparison.differences import MEAN
from selfpos.vectors.names import layer_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from selfpos.report.results import Results

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
    "model": "#0072B2",
}
MARKERS = dict(zip(COLOURS, "s^>vDo*p", strict=True))
LINES = ["#2B8CC4", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442"]
SCALE = 1.15  # of a figure on a page, at most: text has one size in all of them
NARROWEST = 0.9  # of that width: text of 8 points is then 11 pixels; a narrower page scrolls the figure
WIDTH = 5.0  # inches of a figure: two stand side by side on a page of 1,280 pixels
NARROW = 3.3  # inches of a figure drawn again for a phone
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
    """A figure of one plot, `width` × `height` inches, and its axes."""
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
    narrowest = round(NARROWEST * widest)
    text = re.sub(sizes, f' style="max-width: {widest}px; min-width: {narrowest}px"', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    name = name or f"f{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)


def narrow_svg(figure: Figure, name: str) -> str:
    """The figure drawn again for a phone; empty for a heat map that has too many columns for it."""
    for axes in figure.axes:
        letters = max(len(label.get_text()) for label in axes.get_yticklabels())
        if any(0.075 * letters + 0.45 * image.get_size()[1] > NARROW for image in axes.images):
            return ""
    width = figure.get_figwidth()
    figure.set_figwidth(min(width, NARROW))
    text = svg(figure, f"{name}-narrow")
    figure.set_figwidth(width)
    return text


def png(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    return _save(figure, "png", dpi=160, facecolor="white")


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, as SVG where that is its suffix, else as PNG."""
    path.write_bytes(_save(figure, "svg", facecolor="white") if path.suffix == ".svg" else png(figure))


def _save(figure: Figure, form: str, **options: Any) -> bytes:
    import matplotlib as mpl

    out = io.BytesIO()
    # Dates and versions would change the bytes.
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "selfpos", "svg.fonttype": "none"}):
        figure.savefig(out, format=form, metadata=metadata, **options)
    return out.getvalue()


def means(results: Results) -> Figure:
    """Mean score of every model, sorted; bars are intervals of the difference to the baseline."""
    ranked = sorted((mean, model) for model in results.scores if (mean := results.mean(model)) is not None)
    rows = {row.model: row for row in results.comparison.rows} if results.comparison else {}
    figure, axes = plot(WIDTH, 0.9 + 0.3 * len(ranked))
    for row, (mean, model) in enumerate(ranked):
        kind = results.kinds[model]
        gain = rows[model].differences.get(MEAN) if model in rows else None
        if gain is not None and gain.low is not None and gain.high is not None:
            ends = [100 * (mean - gain.value + end) for end in (gain.low, gain.high)]
            style = {"color": COLOURS[kind], "alpha": 0.45, "linewidth": 3, "solid_capstyle": "round"}
            axes.plot(ends, [row, row], **style)
        mark(axes, 100 * mean, row, kind)
        _note(axes, f"{100 * mean:.2f}", (100 * mean, row), (0, 7), ha="center")
    axes.set_yticks(range(len(ranked)), [model for _, model in ranked])
    axes.set_xlabel("mean score (percent)")
    axes.margins(x=0.08, y=0.08)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _note(axes: Any, text: str, at: tuple[float, float], offset: tuple[float, float], **options: Any) -> None:
    axes.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=8, color=GREY, **options)


def score_and_cost(results: Results) -> Figure:
    """Mean score of every model over the seconds for making it, with all it was made from."""
    points = []
    for cost in results.costs:
        mean = results.mean(cost.model)
        if cost.total and mean is not None:
            points.append((cost.total, 100 * mean, cost.model))
    figure, axes = plot(WIDTH, 4.0)
    for seconds, mean, model in points:
        mark(axes, seconds, mean, results.kinds[model])
    base = results.mean("base")
    scores = [mean for _, mean, _ in points]
    shown = scores if base is None else [*scores, 100 * base]
    labels = spread_out(scores, ((max(shown) - min(shown)) or 1.0) / 20)
    edge = 1.08 * max(seconds for seconds, _, _ in points)
    for (seconds, mean, model), label in zip(points, labels, strict=True):
        axes.plot([seconds, edge], [mean, label], color=GREY, linewidth=0.5, alpha=0.35)
        _note(axes, model, (edge, label), (4, 0), va="center")
    if base is not None:
        axes.axhline(100 * base, color=COLOURS["base"], linestyle="--", linewidth=1)
        _note(axes, "base", (0, 100 * base), (4, 3), xycoords=("axes fraction", "data"))
    axes.set_xlim(0, edge)
    axes.set_xlabel("seconds, with all its parts")
    axes.set_ylabel("mean score (percent)")
    axes.grid(alpha=0.3)
    return figure


def heat_map(results: Results) -> Figure:
    """Scores in percent, coloured by the difference to the baseline; a tilde where it is not significant."""
    baseline = results.scores.get(results.baseline, {})
    rows = {row.model: row.differences for row in results.comparison.rows} if results.comparison else {}
    values, texts = [], []
    for model, scores in results.scores.items():
        gains, cells = [], []
        for task in results.tasks:
            gain = float("nan")
            text = "–"
            if task in scores:
                text = f"{100 * scores[task]:.1f}"
                if task in baseline:
                    gain = 100 * (scores[task] - baseline[task])
                if task in baseline and model != results.baseline:
                    difference = rows.get(model, {}).get(task)
                    faint = difference is not None and difference.significant is False
                    text += f"\n{gain:+.1f}{'~' if faint else ''}"
            gains.append(gain)
            cells.append(text)
        values.append(gains)
        texts.append(cells)
    limit = max((abs(gain) for gains in values for gain in gains if gain == gain), default=1.0) or 1.0
    models, tasks = list(results.scores), list(results.tasks)
    return matrix(values, models, tasks, texts, colours="PuOr_r", low=-limit, high=limit)


def angles(results: Results) -> Figure:
    """Angles between the task vectors in degrees, white at 90°, and their norms on the diagonal."""
    from selfpos.vectors import norms_and_cosines

    norms, cosines = norms_and_cosines(np.array(results.gram))
    degrees = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    texts = [[f"{value:.1f}°" for value in row] for row in degrees]
    for index, norm in enumerate(norms):
        texts[index][index] = f"‖V‖\n{norm:.3g}"
    np.fill_diagonal(degrees, np.nan)
    reach = max(10.0, float(np.nanmax(np.abs(degrees - 90), initial=0.0)))
    names = results.vectors
    return matrix(degrees, names, names, texts, colours="RdBu", low=90 - reach, high=90 + reach)


def coefficient_path(
    names: Sequence[str],
    trajectory: Sequence[Mapping[str, Any]],
    coefficients: Sequence[float | None] = (),
    step: int | None = None,
) -> Figure | None:
    """Coefficients over the steps of a search, with the kept ones; below it the losses.

    Losses are those of batches (dots) and held-out records (lines). None for a start and two steps or fewer.
    """
    path = [point for point in trajectory if isinstance(point.get("coefficients"), list)]
    width = len(path[0]["coefficients"]) if path else 0
    if len(path) < 4 or not width or any(len(point["coefficients"]) != width for point in path):
        return None
    validated = [point for point in trajectory if isinstance(point.get("validation"), Mapping)]
    losses = any(point.get("losses") for point in path) or bool(validated)
    figure, axes = plots(WIDTH, 4.6 if losses else 3.0, 2 if losses else 1)
    labels = [names[index] if index < len(names) else str(index + 1) for index in range(width)]
    tasks = dict.fromkeys(
        [task for point in path for task in point.get("losses") or ()]
        + [task for point in validated for task in point["validation"]]
    )
    lines = dict.fromkeys([*labels, *tasks])
    colours = {name: LINES[index % len(LINES)] for index, name in enumerate(lines)}
    steps = [point.get("step", index) for index, point in enumerate(path)]
    for index, name in enumerate(labels):
        axes[0].plot(steps, [point["coefficients"][index] for point in path], label=name, color=colours[name])
        value = coefficients[index] if index < len(coefficients) else None
        if step is not None and value is not None:
            axes[0].plot([step], [value], "*", color=colours[name], markersize=10)
    axes[0].set_ylabel("coefficient" if step is None else "coefficient (★ kept)")
    axes[0].legend(frameon=False, fontsize=8, labelcolor=GREY)
    if losses:
        _losses(axes[1], tasks, path, validated, colours)
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    for panel in axes:
        if step is not None:
            panel.axvline(step, color=GREY, linestyle=":", linewidth=1)
        panel.grid(alpha=0.3)
    return figure


def _losses(
    axes: Any,
    tasks: Sequence[str] | Mapping[str, None],
    path: Sequence[Mapping[str, Any]],
    validated: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
) -> None:
    for task in tasks:
        for points, key, style in ((path, "losses", "."), (validated, "validation", "o-")):
            rows = [(point["step"], point[key][task]) for point in points if task in (point.get(key) or ())]
            if rows:
                alpha = 0.45 if style == "." else 1.0
                size = 6 if style == "." else 3
                axes.plot(*zip(*rows, strict=True), style, markersize=size, color=colours[task], alpha=alpha)
    values = [value for line in axes.lines for value in line.get_ydata() if value > 0]
    if values and max(values) > 30 * min(values):
        axes.set_yscale("log")
    axes.set_ylabel("probe loss" if validated else "loss of batches")


def by_layer(tensors: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Layer → mean coefficients of its tensors; embeddings first, then layers by number, others last."""
    rows: dict[str, list[Sequence[float]]] = {}
    for key, row in tensors.items():
        rows.setdefault(layer_name(key.rpartition("/")[2]), []).append(row)
    layers = {
        layer: [sum(column) / len(members) for column in zip(*members, strict=True)]
        for layer, members in rows.items()
    }

    def position(layer: str) -> int:
        number = layer.rpartition(".")[2]
        if number.isdigit():
            return int(number)
        return -1 if "embed" in layer else 10**6

    return {layer: layers[layer] for layer in sorted(layers, key=position)}


def vary(layers: Mapping[str, Sequence[float]]) -> bool:
    """Whether the layers have different coefficients."""
    rows = list(layers.values())
    return any(abs(a - b) > 1e-9 for row in rows for a, b in zip(row, rows[0], strict=True))


def layer_map(names: Sequence[str], tensors: Mapping[str, Sequence[float]]) -> Figure:
    """Coefficients by layer as a heat map: a row per layer, a column per task vector, white at zero."""
    layers = by_layer(tensors)
    limit = max(1e-9, *(abs(value) for row in layers.values() for value in row))
    width = len(next(iter(layers.values())))
    columns = [names[index] if index < len(names) else str(index + 1) for index in range(width)]
    rows = [layer.replace("encoder.layer.", "layer ") for layer in layers]
    texts = [[f"{value:.2f}" for value in row] for row in layers.values()]
    return matrix(list(layers.values()), rows, columns, texts, colours="RdBu_r", low=-limit, high=limit)


def retained_front(facts: Mapping[str, Any]) -> Figure:
    """The front of `selfpos retain`: domain over general mean, with base, fine-tune and the point taken."""
    figure, axes = plot(WIDTH, 4.0)
    points = [(100 * point["general"], 100 * point["domain"]) for point in facts["front"][:-1]]
    axes.plot(*zip(*points, strict=True), "o-", color=COLOURS["merge"], markersize=4, linewidth=1, alpha=0.7)
    for name, role in (("base", "base"), ("tuned", "specialist"), ("chosen", "positioned")):
        point = facts[name]
        at = (100 * point["general"], 100 * point["domain"])
        mark(axes, *at, role)
        text = "fine-tune" if name == "tuned" else name
        text = f"taken: α = {point['alpha']:.2f}" if name == "chosen" else text
        _note(axes, text, at, (8, -3))
    axes.set_xlabel("general tasks, mean measure (percent)")
    axes.set_ylabel("domain, mean measure (percent)")
    axes.margins(x=0.14, y=0.1)
    axes.grid(alpha=0.3)
    return figure
