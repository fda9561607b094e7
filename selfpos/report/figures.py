"""Figures of scores, costs, task vectors and coefficients, for reports, cards and merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selfpos.comparison.differences import MEAN
from selfpos.report.drawing import COLOURS, GREY, LINES, mark, matrix, plot, plots, spread_out
from selfpos.report.results import RunResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def means(results: RunResults) -> Figure:
    """Mean score of every model, sorted; bars are intervals of the difference to the baseline."""
    ranked = sorted((mean, model) for model in results.scores if (mean := results.mean(model)) is not None)
    rows = {row.model: row for row in results.comparison.rows} if results.comparison else {}
    figure, axes = plot(6.4, 0.9 + 0.3 * len(ranked))
    for row, (mean, model) in enumerate(ranked):
        kind = results.kind(model)
        gain = rows[model].differences.get(MEAN) if model in rows else None
        if gain is not None and gain.low is not None and gain.high is not None:
            ends = [100 * (mean - gain.value + end) for end in (gain.low, gain.high)]
            style = {"color": COLOURS[kind], "alpha": 0.45, "linewidth": 3, "solid_capstyle": "round"}
            axes.plot(ends, [row, row], **style)
        mark(axes, 100 * mean, row, kind)
        _note(axes, f"{100 * mean:.2f}", (100 * mean, row), (0, 7), ha="center")
    axes.set_yticks(range(len(ranked)), [model for _, model in ranked])
    axes.set_xlabel("mean score over all tasks (percent)")
    axes.margins(x=0.08, y=0.08)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _note(axes: Any, text: str, at: tuple[float, float], offset: tuple[float, float], **options: Any) -> None:
    axes.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=8, color=GREY, **options)


def score_and_cost(results: RunResults) -> Figure:
    """Mean score of every model over the seconds for making it, with all it was made from."""
    points = []
    for cost in results.costs:
        mean = results.mean(cost.model)
        if cost.total and mean is not None:
            points.append((cost.total, 100 * mean, cost.model))
    figure, axes = plot(6.4, 4.0)
    for seconds, mean, model in points:
        mark(axes, seconds, mean, results.kind(model))
    scores = [mean for _, mean, _ in points]
    labels = spread_out(scores, ((max(scores) - min(scores)) or 1.0) / 18)
    widest = max(seconds for seconds, _, _ in points)
    for (seconds, mean, model), label in zip(points, labels, strict=True):
        axes.plot([seconds, 1.06 * widest], [mean, label], color=GREY, linewidth=0.5, alpha=0.35)
        axes.text(1.08 * widest, label, model, va="center", fontsize=7.5, color=GREY)
    base = results.mean("base")
    if base is not None:
        axes.axhline(100 * base, color=COLOURS["base"], linestyle="--", linewidth=1)
        _note(axes, "base", (0, 100 * base), (4, 3), xycoords=("axes fraction", "data"))
    axes.set_xlim(0, 1.45 * widest)
    axes.set_xlabel("seconds to make it, with all that it is made from")
    axes.set_ylabel("mean score (percent)")
    axes.grid(alpha=0.3)
    return figure


def heat_map(results: RunResults) -> Figure:
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


def angles(results: RunResults) -> Figure:
    """Angles between the task vectors in degrees, white at 90°, and their norms on the diagonal."""
    import numpy as np

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

    Losses are those of batches (dots) and held-out records (lines). None for fewer than three steps.
    """
    path = [point for point in trajectory if isinstance(point.get("coefficients"), list)]
    width = len(path[0]["coefficients"]) if path else 0
    if len(path) < 3 or not width or any(len(point["coefficients"]) != width for point in path):
        return None
    validated = [point for point in trajectory if isinstance(point.get("validation"), Mapping)]
    losses = any(point.get("losses") for point in path) or bool(validated)
    figure, axes = plots(6.4, 4.6 if losses else 3.0, 2 if losses else 1)
    labels = [names[index] if index < len(names) else str(index + 1) for index in range(width)]
    tasks = dict.fromkeys(
        [task for point in path for task in point.get("losses") or ()]
        + [task for point in validated for task in point["validation"]]
    )
    every = dict.fromkeys([*labels, *tasks])
    colours = {name: LINES[index % len(LINES)] for index, name in enumerate(every)}
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
    from selfpos.vectors.names import layer_name

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
    figure, axes = plot(6.4, 4.0)
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
