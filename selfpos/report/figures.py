"""Figures of scores: the means, the table as a heat map, and the way from the base to every model by task type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfpos.report.drawing import COLOURS, GREY, MARKERS, matrix, plot, plots, spread_out
from selfpos.report.results import RunResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def means(results: RunResults) -> Figure:
    """Mean score of every model as a dot, sorted, coloured by its role; the bar is the interval of its difference to the baseline, where there is one."""
    from selfpos.comparison.differences import MEAN

    found = sorted((mean, model) for model in results.scores if (mean := results.mean(model)) is not None)
    rows = {row.model: row for row in results.comparison.rows} if results.comparison else {}
    figure, axes = plot(6.4, 0.9 + 0.3 * len(found))
    for place, (mean, model) in enumerate(found):
        kind = results.kind(model)
        gain = rows[model].differences.get(MEAN) if model in rows else None
        if gain is not None and gain.low is not None and gain.high is not None:
            ends = [100 * (mean - gain.value + end) for end in (gain.low, gain.high)]
            axes.plot(
                ends, [place, place], color=COLOURS[kind], alpha=0.45, linewidth=3, solid_capstyle="round"
            )
        axes.plot(
            [100 * mean],
            [place],
            MARKERS[kind],
            color=COLOURS[kind],
            markersize=11 if kind == "positioned" else 8,
        )
        axes.annotate(
            f"{100 * mean:.2f}",
            (100 * mean, place),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=GREY,
        )
    axes.set_yticks(range(len(found)), [model for _, model in found])
    axes.set_xlabel("mean score over all tasks (percent)")
    axes.margins(x=0.08, y=0.08)
    axes.grid(axis="x", alpha=0.3)
    return figure


def score_and_cost(results: RunResults) -> Figure:
    """Mean score of every model over the seconds that it took to make, with all it was made from."""
    seconds = {cost.model: cost.total for cost in results.costs if cost.total}
    found = [
        (seconds[model], 100 * mean, model)
        for model in results.scores
        if model in seconds and (mean := results.mean(model)) is not None
    ]
    figure, axes = plot(6.4, 4.0)
    for took, mean, model in found:
        role = results.kind(model)
        axes.plot(
            [took], [mean], MARKERS[role], color=COLOURS[role], markersize=11 if role == "positioned" else 8
        )
    reach = max(mean for _, mean, _ in found) - min(mean for _, mean, _ in found) or 1.0
    labels = spread_out([mean for _, mean, _ in found], reach / 18)
    widest = max(took for took, _, _ in found)
    for (took, mean, model), label in zip(found, labels, strict=True):
        axes.plot([took, 1.06 * widest], [mean, label], color=GREY, linewidth=0.5, alpha=0.35)
        axes.text(1.08 * widest, label, model, va="center", fontsize=7.5, color=GREY)
    base = results.mean("base")
    if base is not None:
        axes.axhline(100 * base, color=COLOURS["base"], linestyle="--", linewidth=1)
        axes.annotate(
            "base",
            (0, 100 * base),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )
    axes.set_xlim(0, 1.45 * widest)
    axes.set_xlabel("seconds to make it, with all that it is made from")
    axes.set_ylabel("mean score (percent)")
    axes.grid(alpha=0.3)
    return figure


def heat_map(results: RunResults) -> Figure:
    """Scores in percent, each with its difference to the baseline below it, by which it is coloured; a tilde where that is not significant."""
    tasks, models = list(results.tasks), list(results.scores)
    baseline = results.baseline
    known = {row.model: row.differences for row in results.comparison.rows} if results.comparison else {}

    def gain(model: str, task: str) -> float:
        own, other = results.scores[model].get(task), results.scores.get(baseline, {}).get(task)
        return float("nan") if own is None or other is None else 100 * (own - other)

    def text(model: str, task: str) -> str:
        if task not in results.scores[model]:
            return "–"
        score = f"{100 * results.scores[model][task]:.1f}"
        difference = known.get(model, {}).get(task)
        faint = "~" if difference is not None and difference.significant is False else ""
        return (
            score
            if model == baseline or gain(model, task) != gain(model, task)
            else f"{score}\n{gain(model, task):+.1f}{faint}"
        )

    values = [[gain(model, task) for task in tasks] for model in models]
    limit = max((abs(value) for row in values for value in row if value == value), default=1.0) or 1.0
    texts = [[text(model, task) for task in tasks] for model in models]
    return matrix(values, models, tasks, texts, colours="PuOr_r", low=-limit, high=limit)


def slopes(results: RunResults) -> Figure:
    """For each task type, lines from the baseline's mean score on its tasks to every other model's."""
    types: dict[str, list[str]] = {}
    for task, told in results.tasks.items():
        types.setdefault(told["type"], []).append(task)
    columns = 2 if len(types) in (2, 4) else min(3, len(types))
    rows = -(-len(types) // columns)
    figure, axes = plots(
        (2.9 if columns == 3 else 4.0) * columns + 0.4,
        (1.2 + 0.24 * len(results.scores)) * rows,
        rows,
        columns,
    )
    for panel in axes[len(types) :]:
        panel.set_visible(False)
    for panel, (kind, tasks) in zip(axes, types.items(), strict=False):
        scored = {
            model: found for model, found in results.scores.items() if all(task in found for task in tasks)
        }
        value = {
            model: 100 * sum(found[task] for task in tasks) / len(tasks) for model, found in scored.items()
        }
        start = value.get(results.baseline)
        if start is None:
            continue
        ends = {model: end for model, end in value.items() if model != results.baseline}
        reach = max([*ends.values(), start]) - min([*ends.values(), start]) or 1.0
        labels = spread_out(list(ends.values()), reach * 1.25 / max(8, len(ends)))
        for (model, end), label in zip(ends.items(), labels, strict=True):
            role = results.kind(model)
            panel.plot(
                [0, 1],
                [start, end],
                color=COLOURS[role],
                linewidth=1.6,
                alpha=0.9,
                zorder=2 + (role == "positioned"),
            )
            panel.plot(
                [1],
                [end],
                MARKERS[role],
                color=COLOURS[role],
                markersize=8 if role == "positioned" else 5,
                zorder=4,
            )
            panel.plot([1.04, 1.1], [end, label], color=GREY, linewidth=0.5, alpha=0.5)
            panel.text(1.12, label, f"{model}  {end:.1f}", va="center", fontsize=7.5, color=GREY)
        panel.plot([0], [start], MARKERS["base"], color=COLOURS["base"], markersize=6)
        panel.set_xlim(-0.1, 2.5)
        panel.set_xticks([0, 1], [f"{results.baseline}\n{start:.1f}", "each model"])
        panel.set_title(
            f"{kind} ({len(tasks)} task{'s' if len(tasks) > 1 else ''})", fontsize=10, loc="left", color=GREY
        )
        panel.spines["bottom"].set_visible(False)
        panel.grid(axis="y", alpha=0.25)
    return figure
