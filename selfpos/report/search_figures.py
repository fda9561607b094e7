"""Figures of the search for coefficients: the way it went, and what it found layer by layer."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from selfpos.report.drawing import GREY, LINES, matrix, plots
from selfpos.report.results import Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coefficient_path(search: Search) -> Figure:
    """Coefficient of each task vector over the steps of the search, and where it was kept; below, loss on each task's batches (faint dots) and on
    its held-out records (lines)."""
    figure, (upper, lower) = plots(6.4, 4.6, 2, sharex=True)
    path = [point for point in search.trajectory if "coefficients" in point]
    judged = [point for point in search.trajectory if "validation" in point]
    names, kept = search.position["names"], search.position["step"]
    tasks = dict.fromkeys(
        name for point in [*path, {"losses": search.position["losses"]}] for name in point["losses"]
    )
    colours = {name: LINES[index % len(LINES)] for index, name in enumerate(dict.fromkeys([*names, *tasks]))}
    for index, name in enumerate(names):
        upper.plot(
            [point["step"] for point in path],
            [point["coefficients"][index] for point in path],
            label=name,
            color=colours[name],
        )
        upper.plot([kept], [search.position["coefficients"][index]], "*", color=colours[name], markersize=10)
    upper.set_ylabel("coefficient (★ kept)")
    upper.legend(frameon=False, fontsize=8, labelcolor=GREY)
    for task in tasks:
        drawn = [(point["step"], point["losses"][task]) for point in path if task in point["losses"]]
        held = [(point["step"], point["validation"][task]) for point in judged if task in point["validation"]]
        lower.plot(*zip(*drawn, strict=True), ".", color=colours[task], alpha=0.45) if drawn else None
        lower.plot(*zip(*held, strict=True), "o-", markersize=3, color=colours[task]) if held else None
    values = [value for line in lower.lines for value in line.get_ydata() if value > 0]
    if values and max(values) > 30 * min(values):
        lower.set_yscale("log")
    lower.set_ylabel("probe loss" if judged else "loss of batches")
    lower.set_xlabel("step")
    lower.xaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, lower):
        axes.axvline(kept, color=GREY, linestyle=":", linewidth=1)
        axes.grid(alpha=0.3)
    return figure


def by_layer(search: Search) -> dict[str, list[float]]:
    """Layer → its coefficients, the mean over its tensors; empty where the whole model shares them."""
    if not search.position.get("tensors"):
        return {}
    from selfpos.vectors.names import layer_name

    found: dict[str, list[list[float]]] = defaultdict(list)
    for key, row in search.position["tensors"].items():
        found[layer_name(key.rpartition("/")[2])].append(row)
    layers = {
        layer: [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        for layer, rows in found.items()
    }
    varied = any(
        abs(value - other) > 1e-9
        for row in layers.values()
        for value, other in zip(row, next(iter(layers.values())), strict=True)
    )
    order = sorted(
        layers,
        key=lambda layer: (
            int(digits)
            if (digits := layer.rpartition(".")[2]).isdigit()
            else -1
            if "embed" in layer
            else 10**6
        ),
    )
    return {layer: layers[layer] for layer in order} if varied else {}


def layer_map(search: Search) -> Figure:
    """Coefficients by layer as a heat map: a row a layer, a column a task vector, white at zero."""
    layers = by_layer(search)
    limit = max(1e-9, *(abs(value) for row in layers.values() for value in row))
    names = [layer.replace("encoder.layer.", "layer ") for layer in layers]
    texts = [[f"{value:.2f}" for value in row] for row in layers.values()]
    return matrix(
        list(layers.values()),
        names,
        search.position["names"],
        texts,
        colours="RdBu_r",
        low=-limit,
        high=limit,
    )
