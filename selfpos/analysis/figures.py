"""The figures of an analysis, drawn as the report draws its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from selfpos.report.drawing import GREY, LINES, matrix, plot, save, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from selfpos.analysis.study import Findings

__all__ = ["draw", "save", "svg"]


def draw(found: Findings) -> dict[str, tuple[str, Figure]]:
    """Every figure there is data for: file name → title and figure."""
    drawn = {}
    if any(point["pairs"] for point in found.gradients.values()):
        drawn["gradients"] = (
            "Cosine of the tasks' gradients, with 95 % intervals; rings where the batches give none",
            gradients(found),
        )
        drawn["layers"] = ("Cosine of the tasks' gradients at the base, layer by layer", layers(found))
    if found.gaps:
        drawn["gaps"] = ("Joint model minus best specialist, in points of percent", gaps(found))
    if found.dominance:
        drawn["dominance"] = ("How much of each joint vector is each specialist", dominance(found))
    if found.arms:
        drawn["arms"] = (
            "Length of the vector against records, for equal epochs and equal steps",
            arms(found),
        )
    return drawn


def gradients(found: Findings) -> Figure:
    """One row for each pair of tasks and point; left of zero the tasks pull apart. A ring stands for a cosine without an interval."""
    labels, points = [], list(found.gradients)
    rows = [(point, pair) for place in range(len(found.gradients[points[0]]["pairs"])) for point in points
            for pair in [found.gradients[point]["pairs"][place]]]  # fmt: skip
    figure, axes = plot(6.8, 1.0 + 0.26 * len(rows))
    for row, (point, pair) in enumerate(reversed(rows)):
        labels.append(f"{' – '.join(pair['tasks'])} at {point}")
        if pair["cosine"] is None:
            axes.annotate("lost in noise", (0, row), fontsize=7, color=GREY, va="center")
            continue
        colour = LINES[points.index(point) % len(LINES)]
        if pair["low"] is not None:
            axes.plot([pair["low"], pair["high"]], [row, row], color=colour, alpha=0.6)
        known = pair["low"] is not None  # a ring where too few batches give no interval
        axes.plot(
            [pair["cosine"]],
            [row],
            "o",
            color=colour,
            markersize=5,
            markerfacecolor=colour if known else "none",
        )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.set_xlabel("cosine")
    axes.grid(axis="x", alpha=0.3)
    return figure


def layers(found: Findings) -> Figure:
    """Over the layers, from the embeddings on: a line for each pair of tasks, or, where there are too many to tell lines apart, a row of a map."""
    measured = next(iter(found.gradients.values()))["layers"]
    names = list(measured)
    pairs = [" – ".join(pair["tasks"]) for pair in measured[names[0]]]
    cosines = [[measured[name][place]["cosine"] for name in names] for place in range(len(pairs))]
    if len(pairs) > len(LINES):
        known = [[math.nan if cosine is None else cosine for cosine in row] for row in cosines]
        most = max((abs(cosine) for row in known for cosine in row if not math.isnan(cosine)), default=1.0)
        texts = [["" if cosine is None else f"{cosine:+.2f}" for cosine in row] for row in cosines]
        return matrix(known, pairs, names, texts, colours="PuOr_r", low=-most, high=most)
    figure, axes = plot(6.8, 3.6)
    for place, (pair, row) in enumerate(zip(pairs, cosines, strict=True)):
        points = [(at, cosine) for at, cosine in enumerate(row) if cosine is not None]
        axes.plot(
            *zip(*points, strict=True) if points else ([], []),
            "o-",
            markersize=3,
            color=LINES[place],
            label=pair,
        )
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_ylabel("cosine")
    axes.legend(frameon=False, fontsize=8, labelcolor=GREY)
    axes.grid(alpha=0.3)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=7)
    return figure


def gaps(found: Findings) -> Figure:
    """One bar for each evaluation task and joint model; left of zero it is behind."""
    several = len(found.rivals) > 1
    figure, axes = plot(6.4, 0.9 + 0.32 * len(found.gaps))
    rows = sorted(found.gaps, key=lambda gap: gap["gap"], reverse=True)
    axes.barh(
        range(len(rows)),
        [100 * gap["gap"] for gap in rows],
        color=[LINES[1] if gap["gap"] < 0 else LINES[2] for gap in rows],
    )
    axes.set_yticks(
        range(len(rows)),
        [f"{gap['task']}, {gap['rival']}" if several else gap["task"] for gap in rows],
        fontsize=7,
    )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xlabel("joint − best specialist (points)")
    axes.grid(axis="x", alpha=0.3)
    return figure


def dominance(found: Findings) -> Figure:
    """Coefficient of every specialist in every joint vector, side by side."""
    specialists = [share["name"] for share in next(iter(found.dominance.values()))["shares"]]
    figure, axes = plot(6.4, 0.9 + 0.2 * len(specialists) * (1 + len(found.dominance)))
    height = 0.8 / len(found.dominance)
    for number, (rival, lead) in enumerate(found.dominance.items()):
        places = [row + 0.4 - height * (number + 0.5) for row in range(len(specialists))]
        axes.barh(
            places,
            [share["coefficient"] for share in lead["shares"]],
            height=height,
            label=rival,
            color=LINES[number % len(LINES)],
        )
    axes.set_yticks(range(len(specialists)), specialists)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_xlabel("coefficient in the nearest combination")
    axes.legend(frameon=False, fontsize=8, labelcolor=GREY)
    axes.grid(axis="x", alpha=0.3)
    return figure


def arms(found: Findings) -> Figure:
    """Length against records, both on logarithmic scales: full lines see their records once, broken ones go on for equal steps."""
    figure, axes = plot(6.4, 3.8)
    for place, task in enumerate(dict.fromkeys(arm["task"] for arm in found.arms)):
        own = [arm for arm in found.arms if arm["task"] == task]
        for kind, style in (("equal epochs", "o-"), ("equal steps", "s--")):
            line = sorted((arm["records"], arm["norm"]) for arm in own if arm["kind"] in (kind, "longest"))
            axes.plot(
                *zip(*line, strict=True),
                style,
                markersize=4,
                color=LINES[place % len(LINES)],
                label=f"{task}, {kind}",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("records")
    axes.set_ylabel("‖V‖")
    axes.legend(frameon=False, fontsize=7, labelcolor=GREY)
    axes.grid(alpha=0.3, which="both")
    return figure
