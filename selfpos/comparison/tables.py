"""A comparison as tables and as files: Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from selfpos.comparison.differences import MEAN, MEAN_OF_TYPES, Comparison
from selfpos.console import markdown_table, table_text
from selfpos.errors import SelfposError
from selfpos.scores.intervals import Difference
from selfpos.storage.atomic import refuse_existing, write_text


@dataclass(frozen=True)
class Cell:
    """One entry as text; `best` of its column, `faint` when it is within the noise."""

    text: str
    best: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Line:
    """A model and its cells; `kind` is its role in a run."""

    model: str
    kind: str
    cells: list[Cell]


@dataclass(frozen=True)
class Grid:
    """`notes` are second titles of the `columns`, such as the metric."""

    title: str
    columns: list[str]
    notes: list[str]
    rows: list[Line]


def percent(values: Mapping[str, Sequence[float | None]]) -> dict[str, list[Cell]]:
    """Scores in 0..1 by model as cells in percent with two decimals; the best of each column is marked."""
    best = []
    for column in zip(*values.values(), strict=True):
        best.append(max((round(value, 4) for value in column if value is not None), default=None))

    def cell(score: float | None, top: float | None) -> Cell:
        return Cell("–") if score is None else Cell(f"{100 * score:.2f}", round(score, 4) == top)

    return {model: [cell(*pair) for pair in zip(row, best, strict=True)] for model, row in values.items()}


def terminal(grid: Grid) -> str:
    """As text: the best of a column with a star, what is within the noise with a tilde."""
    header = ["model"]
    for name, note in zip(grid.columns, grid.notes, strict=True):
        header.append(f"{name}\n{note}" if note else name)

    def escape(text: str) -> str:
        return text.replace("[", r"\[")

    rows = _rows(grid, best="[bold green]{}*[/]", faint="[dim]{}~[/]", other="{} ", escape=escape)
    return table_text(header, rows, title=grid.title)


def _rows(
    grid: Grid, *, best: str, faint: str, other: str = "{}", escape: Callable[[str], str] = str
) -> list[list[str]]:
    """Model and cells of each line: the best of a column, what is within the noise, and others."""

    def shown(cell: Cell) -> str:
        template = faint if cell.faint else other
        return (best if cell.best else template).format(escape(cell.text))

    return [[line.model, *map(shown, line.cells)] for line in grid.rows]


def markdown(grid: Grid) -> str:
    """As Markdown: the best of a column bold, what is within the noise with a tilde."""
    rules = ["---", *["---:"] * len(grid.columns)]
    return markdown_table(["model", *grid.columns], _rows(grid, best="**{}**", faint="{} ~"), rules=rules)


def latex(grid: Grid) -> str:
    """As a LaTeX tabular (booktabs): the best of a column bold, what is within the noise grey (xcolor)."""
    rows = _rows(grid, best=r"\textbf{{{}}}", faint=r"\textcolor{{gray}}{{{}}}", escape=_escape)
    lines = [r"\begin{tabular}{l" + "r" * len(grid.columns) + "}", r"\toprule"]
    lines += [" & ".join(["model", *map(_escape, grid.columns)]) + r" \\", r"\midrule"]
    lines += [" & ".join([_escape(model), *cells]) + r" \\" for model, *cells in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "†": r"\dag{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def shown_columns(comparison: Comparison) -> list[str]:
    """The columns to show: without types of one task and means over one task, which would repeat it."""
    types = [kind for kind, tasks in comparison.types.items() if 1 < len(tasks) < len(comparison.tasks)]
    means = [MEAN] if len(comparison.tasks) > 1 else []
    return [*comparison.tasks, *types, *means, *([MEAN_OF_TYPES] if types else [])]


def scores_grid(comparison: Comparison) -> Grid:
    """Scores in percent with means and Borda rank, and the task with the lowest difference."""
    columns = shown_columns(comparison)
    percents = percent({row.model: [row.scores.get(column) for column in columns] for row in comparison.rows})
    rows = []
    for row in comparison.rows:
        cells = []
        for cell, column in zip(percents[row.model], columns, strict=True):
            spread = f" ± {100 * row.spread[column]:.2f}" if column in row.spread else ""
            cells.append(Cell(cell.text + spread, cell.best))
        worst = "–"
        if row.worst is not None:
            worst = f"{row.worst} {100 * row.differences[row.worst].value:+.2f}"
        rank = Cell("–" if row.borda is None else str(row.borda), row.borda == 1)
        rows.append(Line(row.model, "", [*cells, rank, Cell(worst)]))
    notes = [*(_note(comparison, column) for column in columns), "", f"against {comparison.baseline}"]
    title = "scores in percent, * best of its column"
    if any(row.spread for row in comparison.rows):
        title += "; ± standard deviation over seeds"
    return Grid(title, [*columns, "Borda rank", "worst task"], notes, rows)


def _note(comparison: Comparison, column: str) -> str:
    """The metric of a task, or how many tasks or types a column is the mean of."""
    if column in comparison.tasks:
        return comparison.tasks[column][1]
    if column == MEAN_OF_TYPES:
        return f"mean of {len(comparison.types)}"
    return f"mean of {len(comparison.types.get(column, comparison.tasks))}"


def differences_grid(comparison: Comparison) -> Grid:
    """Differences to the baseline in points, with intervals; faint where they are not significant."""
    columns = shown_columns(comparison)
    rows = []
    for row in comparison.rows:
        if row.model != comparison.baseline:
            cells = [_difference_cell(row.differences.get(column)) for column in columns]
            rows.append(Line(row.model, "", cells))
    title = (
        f"differences to {comparison.baseline} in points, with {100 * comparison.level:g} % intervals, "
        "~ not significant after Holm's correction, † only before it"
    )
    return Grid(title, columns, [""] * len(columns), rows)


def _difference_cell(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell("–")
    value = f"{100 * difference.value:+.2f}"
    if difference.low is None or difference.high is None:
        return Cell(f"{value} [?]")
    interval = f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    mark = " †" if difference.before_correction else ""
    return Cell(f"{value} {interval}{mark}", faint=not difference.significant)


def how(comparison: Comparison) -> str:
    """A paragraph on how intervals and marks were computed, to go under a table."""
    seeds = max(row.seeds for row in comparison.rows)
    over_seeds = ""
    if seeds > 1:
        over_seeds = (
            f" Over up to {seeds} seeds: variances over examples and over seeds are added, "
            "and intervals are Student's t."
        )
    return (
        f"Intervals ({100 * comparison.level:g} %) come from a paired bootstrap: {comparison.draws:,} "
        "resamples of each task's examples (pairs, queries, texts, documents), the same for both models, "
        "centred on the measured difference. Tasks are resampled independently. p-values come from "
        "flipping the signs of the examples' differences: exactly where few examples differ, or all by "
        "the same (McNemar's test), else in as many draws; for measures that are no means the differences "
        f"are those of the jackknife. An interval beside an insignificant p is widened to 0.{over_seeds} "
        f"Significance is at {1 - comparison.level:.2g} after Holm's correction: over all differences on "
        "tasks, over those of the type means, and over the models for each mean; † marks what is "
        "significant only before it. The effect of the training seed is not part of an interval over one "
        "seed."
    )


def text(comparison: Comparison) -> str:
    """Both tables for a terminal, and the notes."""
    parts = [terminal(scores_grid(comparison))]
    if len(comparison.rows) > 1:
        parts += [terminal(differences_grid(comparison)), how(comparison)]
    return "\n\n".join([*parts, *comparison.notes])


def _markdown(comparison: Comparison) -> str:
    differences = differences_grid(comparison)
    parts = [markdown(scores_grid(comparison))]
    if differences.rows:
        title = f"{differences.title[0].upper()}{differences.title[1:]}:"
        parts += [title, markdown(differences), how(comparison)]
    return "\n\n".join([*parts, *comparison.notes]) + "\n"


def _latex(comparison: Comparison) -> str:
    parts = []
    for table in (scores_grid(comparison), differences_grid(comparison)):
        if table.rows:
            parts.append(f"% {table.title.replace('%', 'percent')}\n{latex(table)}")
    return "\n\n".join(parts) + "\n"


def _csv(comparison: Comparison) -> str:
    """One line per model and column, scores in 0..1."""
    stream = io.StringIO()
    stream.write("model,column,kind,score,spread,seeds,difference,low,high,p,p_holm,significant\n")
    out = csv.writer(stream, lineterminator="\n")
    kinds = {**dict.fromkeys(comparison.tasks, "task"), **dict.fromkeys(comparison.types, "type")}
    kinds |= {MEAN: "mean", MEAN_OF_TYPES: "mean"}
    for row in comparison.rows:
        for column, kind in kinds.items():
            if column not in row.scores:
                continue
            numbers: list[float | None] = [None] * 6
            if column in row.differences:
                difference = row.differences[column]
                numbers = [difference.value, difference.low, difference.high]
                numbers += [difference.p, difference.adjusted, difference.significant]
            score, spread = row.scores[column], row.spread.get(column)
            out.writerow([row.model, column, kind, score, spread, row.seeds, *numbers])
    return stream.getvalue()


def _json(comparison: Comparison) -> str:
    data = asdict(comparison)
    for row, shown in zip(comparison.rows, data["rows"], strict=True):
        for column, difference in row.differences.items():
            shown["differences"][column]["significant"] = difference.significant
    return json.dumps({**data, "how": how(comparison)}, indent=1) + "\n"


FORMATS = {".md": _markdown, ".tex": _latex, ".csv": _csv, ".json": _json}


def check_outputs(files: list[Path]) -> None:
    """Raise SelfposError for a file of no known format, or one that exists."""
    for file in files:
        if file.suffix not in FORMATS:
            raise SelfposError(f"{file}: expected a name that ends in {', '.join(FORMATS)}")
        refuse_existing(file)


def write(comparison: Comparison, file: Path) -> None:
    """Write the comparison to `file`, in place of an old one, in the format of its suffix, one of FORMATS."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, FORMATS[file.suffix](comparison))
