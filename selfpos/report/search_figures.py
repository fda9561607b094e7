"""Figures of the search for coefficients: the way it went, and what it found layer by layer."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from selfpos.report.drawing import GREY, LINES, matrix, plots
from selfpos.report.results import Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coefficient_path(search: Search) -> Figure:
    """Coefficient of each task vector over the steps of the search; below, loss on each task's batches (faint) and held-out records (dots)."""
    figure, (upper, lower) = plots(6.4, 4.6, 2, sharex=True)
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
    lower.xaxis.get_major_locator().set_params(integer=True)
    lower.legend(frameon=False, fontsize=8, labelcolor=GREY)
    for axes in (upper, lower):
        axes.axvline(search.position["step"], color=GREY, linestyle=":", linewidth=1)
        axes.grid(alpha=0.3)
    return figure


def by_layer(search: Search) -> dict[str, list[float]]:
    """Layer → its coefficients, the mean over its tensors; empty where the whole model shares them."""
    if not search.position.get("tensors"):
        return {}
    from selfpos.positioning.groups import layer_of  # brings torch along

    found: dict[str, list[list[float]]] = defaultdict(list)
    for key, row in search.position["tensors"].items():
        found[layer_of(key.rpartition("/")[2])].append(row)
    layers = {layer: [sum(column) / len(rows) for column in zip(*rows, strict=True)] for layer, rows in found.items()}
    varied = any(
        abs(value - other) > 1e-9 for row in layers.values() for value, other in zip(row, next(iter(layers.values())), strict=True)
    )
    order = sorted(
        layers, key=lambda layer: int(digits) if (digits := layer.rpartition(".")[2]).isdigit() else -1 if "embed" in layer else 10**6
    )
    return {layer: layers[layer] for layer in order} if varied else {}


def layer_map(search: Search) -> Figure:
    """Coefficients by layer as a heat map: a row a layer, a column a task vector, white at zero."""
    layers = by_layer(search)
    limit = max(1e-9, *(abs(value) for row in layers.values() for value in row))
    names = [layer.replace("encoder.layer.", "layer ") for layer in layers]
    texts = [[f"{value:.2f}" for value in row] for row in layers.values()]
    return matrix(list(layers.values()), names, search.position["names"], texts, colours="RdBu_r", low=-limit, high=limit)
