"""Pictures of coefficients, for reports, cards and merges: their path through the search, and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.report.drawing import GREY, LINES, matrix, plots, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_coefficients(
    file: Path,
    names: Sequence[str],
    coefficients: Sequence[float],
    trajectory: Sequence[Mapping[str, Any]],
    step: int,
) -> None:
    """Save the path of the `coefficients` kept at `step` to `file`, a PNG or SVG, if the search has one."""
    figure = coefficient_path(names, trajectory, coefficients, step)
    if figure is not None:
        save(figure, file)


def coefficient_path(
    names: Sequence[str],
    trajectory: Sequence[Mapping[str, Any]],
    coefficients: Sequence[float | None] = (),
    step: int | None = None,
) -> Figure | None:
    """Coefficients over the steps of a search, with the kept ones; below it the losses.

    Losses are those of batches (faint dots) and of held-out records (lines). None for fewer than three steps
    with coefficients, whose path says nothing.
    """
    path = [point for point in trajectory if isinstance(point.get("coefficients"), list)]
    width = len(path[0]["coefficients"]) if path else 0
    if len(path) < 3 or not width or any(len(point["coefficients"]) != width for point in path):
        return None
    validated = [point for point in trajectory if isinstance(point.get("validation"), Mapping)]
    losses = any(point.get("losses") for point in path) or bool(validated)
    figure, axes = plots(6.4, 4.6 if losses else 3.0, 2 if losses else 1, sharex=True)
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
