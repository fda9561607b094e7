"""Figures of scores, costs and task vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selfpos.comparison.differences import MEAN
from selfpos.report.drawing import COLOURS, GREY, mark, matrix, plot, spread_out
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
