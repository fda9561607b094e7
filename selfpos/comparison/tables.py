"""A comparison as tables, and as files: Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from selfpos.comparison import grid
from selfpos.comparison.differences import MEAN, MEAN_OF_TYPES, Comparison, Row
from selfpos.comparison.grid import Cell, Grid, Line
from selfpos.errors import SelfposError
from selfpos.scores.intervals import Difference


def shown_columns(comparison: Comparison) -> list[str]:
    """The columns worth showing: a type of one task, or a mean over one, would say the same twice."""
    types = [kind for kind, tasks in comparison.types.items() if 1 < len(tasks) < len(comparison.tasks)]
    means = [MEAN] if len(comparison.tasks) > 1 else []
    return [*comparison.tasks, *types, *means, *([MEAN_OF_TYPES] if types else [])]


def scores_grid(comparison: Comparison) -> Grid:
    """Scores in percent with their means, the Borda rank, and the task that a model loses most on against the baseline."""
    columns = shown_columns(comparison)
    cells = grid.percent(
        {row.model: [row.scores.get(column) for column in columns] for row in comparison.rows}
    )
    rows = []
    for row in comparison.rows:
        texts = [
            Cell(
                cell.text + (f" ± {100 * row.spread[column]:.2f}" if column in row.spread else ""), cell.best
            )
            for column, cell in zip(columns, cells[row.model], strict=True)
        ]
        rank = Cell("–" if row.borda is None else str(row.borda), row.borda == 1)
        rows.append(Line(row.model, "", [*texts, rank, Cell(_worst(row))]))
    notes = [_note(comparison, column) for column in columns]
    title = "scores in percent, * best of its column" + (
        "; ± standard deviation over seeds" if any(r.spread for r in comparison.rows) else ""
    )
    return Grid(
        title, [*columns, "Borda rank", "worst task"], [*notes, "", f"against {comparison.baseline}"], rows
    )


def _note(comparison: Comparison, column: str) -> str:
    if column in comparison.tasks:
        return comparison.tasks[column][1]
    return f"mean of {len(comparison.types) if column == MEAN_OF_TYPES else len(comparison.types.get(column, comparison.tasks))}"


def _worst(row: Row) -> str:
    return "–" if row.worst is None else f"{row.worst} {100 * row.differences[row.worst].value:+.2f}"


def differences_grid(comparison: Comparison) -> Grid:
    """Differences to the baseline in points, with intervals; a tilde where they are not significant."""
    columns = shown_columns(comparison)
    rows = []
    for row in comparison.rows:
        if row.model != comparison.baseline:
            cells = [_difference(row.differences.get(column)) for column in columns]
            rows.append(Line(row.model, "", cells))
    title = f"differences to {comparison.baseline} in points, with {100 * comparison.level:g} % intervals, ~ not significant after Holm's correction"
    return Grid(title, columns, [""] * len(columns), rows)


def _difference(found: Difference | None) -> Cell:
    if found is None:
        return Cell("–")
    if found.low is None or found.high is None:
        return Cell(f"{100 * found.value:+.2f} [?]")
    return Cell(
        f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]",
        faint=not found.significant,
    )


def how(comparison: Comparison) -> str:
    """A paragraph on how intervals and marks were made, for under a table."""
    seeds = max(row.seeds for row in comparison.rows)
    several = (
        f" Over up to {seeds} seeds: variances over examples and over seeds are added, intervals are Student's t."
        if seeds > 1
        else ""
    )
    alpha = 1 - comparison.level
    return (
        f"Intervals ({100 * comparison.level:g} %) are of a paired bootstrap with {comparison.draws:,} resamples of each task's examples (pairs, "
        f"queries, texts, documents), the same for both models, around the difference found; tasks are resampled independently.{several} Marks of significance are at {alpha:.2g} "
        "after Holm's correction: over all differences on tasks together, over those of the type means, and over the models for each mean. "
        "What a model owes to its training seed is in no interval over one seed."
    )


def text(comparison: Comparison) -> str:
    """Both tables for a terminal."""
    parts = [grid.terminal(scores_grid(comparison))]
    if len(comparison.rows) > 1:
        parts += [grid.terminal(differences_grid(comparison)), how(comparison)]
    return "\n\n".join([*parts, *comparison.notes])


def _markdown(comparison: Comparison) -> str:
    differences = differences_grid(comparison)
    parts = [grid.markdown(scores_grid(comparison))]
    if differences.rows:
        parts += [
            f"{differences.title[0].upper()}{differences.title[1:]}:",
            grid.markdown(differences),
            how(comparison),
        ]
    return "\n\n".join([*parts, *comparison.notes]) + "\n"


def _latex(comparison: Comparison) -> str:
    grids = [scores_grid(comparison), differences_grid(comparison)]
    return (
        "\n\n".join(
            f"% {table.title.replace('%', 'percent')}\n{grid.latex(table)}" for table in grids if table.rows
        )
        + "\n"
    )


def _csv(comparison: Comparison) -> str:
    """One line a model and column, scores in 0..1."""
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    out.writerow(
        [
            "model",
            "column",
            "kind",
            "score",
            "spread",
            "seeds",
            "difference",
            "low",
            "high",
            "p",
            "p_holm",
            "significant",
        ]
    )
    kinds = {
        **dict.fromkeys(comparison.tasks, "task"),
        **dict.fromkeys(comparison.types, "type"),
        MEAN: "mean",
        MEAN_OF_TYPES: "mean",
    }
    for row in comparison.rows:
        for column, kind in kinds.items():
            if column in row.scores:
                found = row.differences.get(column)
                numbers = (
                    [found.value, found.low, found.high, found.p, found.adjusted, found.significant]
                    if found
                    else [None] * 6
                )
                out.writerow(
                    [row.model, column, kind, row.scores[column], row.spread.get(column), row.seeds, *numbers]
                )
    return stream.getvalue()


def _json(comparison: Comparison) -> str:
    data = asdict(comparison)
    for row, shown in zip(comparison.rows, data["rows"], strict=True):
        for column, found in row.differences.items():
            shown["differences"][column]["significant"] = found.significant
    return json.dumps({**data, "how": how(comparison)}, indent=1) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    ".md": _markdown,
    ".tex": _latex,
    ".csv": _csv,
    ".json": _json,
}


def check_outputs(files: list[Path]) -> None:
    """Raise SelfposError for a file of no known format, or one that exists."""
    from selfpos.storage.atomic import refuse_existing

    for file in files:
        if file.suffix not in FORMATS:
            raise SelfposError(f"{file}: expected a name that ends in {', '.join(FORMATS)}")
        refuse_existing(file)


def write(comparison: Comparison, file: Path) -> None:
    """Write the comparison to `file` in the format of its suffix."""
    from selfpos.storage.atomic import write_text

    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, FORMATS[file.suffix](comparison))
