"""The card's two pictures, as PNG bytes: coefficients by part of the network, and their way through the search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coefficient_map(groups: Mapping[str, Sequence[float]], names: Sequence[str]) -> bytes:
    """Heat map: one row per parent, one column per part of the network (layer, or tensor where those of a layer differ), zero white."""
    import numpy as np
    from matplotlib.figure import Figure

    columns = parts(groups)
    values = np.array([list(group) for _, group in columns], dtype=float).T
    bound = max(1e-12, float(np.abs(values).max()))
    figure = Figure(
        figsize=(min(12.0, 3 + 0.45 * len(columns)), 1.6 + 0.35 * len(values)), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
    axes.set_yticks(
        range(len(values)), [names[i] if i < len(names) else str(i + 1) for i in range(len(values))]
    )
    labels = [label for label, _ in columns]
    places = [index for index, label in enumerate(labels) if index == 0 or labels[index - 1] != label]
    places = places[:: max(1, -(-len(places) // 40))]
    axes.set_xticks(places, [labels[index] for index in places], rotation=60, ha="right", fontsize=8)
    figure.colorbar(image, label="coefficient")
    return _png(figure)


def parts(groups: Mapping[str, Sequence[float]]) -> list[tuple[str, tuple[float, ...]]]:
    """Columns of the map, each a label and its coefficients: tensor names cut to their layer or module, equal neighbours of one label made one."""
    columns: list[tuple[str, tuple[float, ...]]] = []
    for name, values in groups.items():
        layer = re.search(r"\blayers?\.(\d+)\b|\bh\.(\d+)\b", name)
        label = f"layer {layer[1] or layer[2]}" if layer else re.split(r"[./]", name)[0]
        if not columns or columns[-1] != (label, tuple(values)):
            columns.append((label, tuple(values)))
    return columns


def trajectory_plot(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    kept: int | None = None,
    coefficients: Sequence[float | None] = (),
) -> bytes | None:
    """Coefficients over steps, one line per parent, and a star where they were kept; None where the trajectory holds no coefficients. Rows without are
    passed over."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    points = [
        (row.get("step", index), row["coefficients"])
        for index, row in enumerate(rows)
        if "coefficients" in row
    ]
    width = len(points[0][1]) if points and isinstance(points[0][1], list) else 0
    if (
        len(points) < 2
        or not width
        or not all(isinstance(values, list) and len(values) == width for _, values in points)
    ):
        return None
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for index in range(width):
        label = names[index] if index < len(names) else str(index + 1)
        (line,) = axes.plot(
            [step for step, _ in points], [values[index] for _, values in points], label=label
        )
        if kept is not None and index < len(coefficients) and (value := coefficients[index]) is not None:
            axes.plot([kept], [value], "*", color=line.get_color(), markersize=12)
    axes.set(xlabel="step" if kept is None else "step (★ kept)", ylabel="coefficient")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(
        out, format="png", dpi=130, metadata={"Software": None}
    )  # the version of matplotlib would change the bytes
    return out.getvalue()
