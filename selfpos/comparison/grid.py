"""Tables of models as rows, for a terminal, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfpos.console import markdown_table, table_text


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

    def shown(cell: Cell) -> str:
        text = cell.text.replace("[", r"\[")
        if cell.best:
            return f"[bold green]{text}*[/]"
        return f"[dim]{text}~[/]" if cell.faint else f"{text} "

    return table_text(header, [[row.model, *map(shown, row.cells)] for row in grid.rows], title=grid.title)


def markdown(grid: Grid) -> str:
    """As Markdown: the best of a column bold, what is within the noise with a tilde."""

    def shown(cell: Cell) -> str:
        if cell.best:
            return f"**{cell.text}**"
        return f"{cell.text} ~" if cell.faint else cell.text

    rows = [[row.model, *map(shown, row.cells)] for row in grid.rows]
    return markdown_table(["model", *grid.columns], rows, rules=["---", *["---:"] * len(grid.columns)])


def latex(grid: Grid) -> str:
    """As a LaTeX tabular (booktabs): the best of a column bold, what is within the noise grey (xcolor)."""

    def shown(cell: Cell) -> str:
        text = _escape(cell.text)
        if cell.best:
            return rf"\textbf{{{text}}}"
        return rf"\textcolor{{gray}}{{{text}}}" if cell.faint else text

    lines = [r"\begin{tabular}{l" + "r" * len(grid.columns) + "}", r"\toprule"]
    lines += [" & ".join(["model", *map(_escape, grid.columns)]) + r" \\", r"\midrule"]
    lines += [" & ".join([_escape(row.model), *map(shown, row.cells)]) + r" \\" for row in grid.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
