"""Tables of models as rows, for a terminal, Markdown and LaTeX: the one place that knows how a table of scores looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfpos.console import table_text


@dataclass(frozen=True)
class Cell:
    """One entry as text; `best` among the rows of its column, `faint` when it is within the noise."""

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
    """`notes` are second titles of the `columns`, such as what each is measured in."""

    title: str
    columns: list[str]
    notes: list[str]
    rows: list[Line]


def percent(values: Mapping[str, Sequence[float | None]]) -> dict[str, list[Cell]]:
    """Scores in 0..1 by model as cells in percent with two decimals, the best of each column marked; ties share the mark."""
    best = [
        max((round(value, 4) for value in column if value is not None), default=None)
        for column in zip(*values.values(), strict=True)
    ]
    return {
        model: [
            Cell("–" if v is None else f"{100 * v:.2f}", v is not None and round(v, 4) == top)
            for v, top in zip(found, best, strict=True)
        ]
        for model, found in values.items()
    }


def terminal(grid: Grid) -> str:
    """As text: the best of a column with a star, what is within the noise with a tilde."""
    header = [
        "model",
        *(f"{name}\n{note}" if note else name for name, note in zip(grid.columns, grid.notes, strict=True)),
    ]

    def shown(cell: Cell) -> str:
        text = cell.text.replace("[", r"\[")
        return f"[bold green]{text}*[/]" if cell.best else f"[dim]{text}~[/]" if cell.faint else f"{text} "

    return table_text(header, [[row.model, *map(shown, row.cells)] for row in grid.rows], title=grid.title)


def markdown(grid: Grid) -> str:
    """As Markdown: the best of a column bold, what is within the noise with a tilde."""
    lines = ["| model | " + " | ".join(grid.columns) + " |", "|---|" + "---:|" * len(grid.columns)]
    for row in grid.rows:
        cells = [
            f"**{cell.text}**" if cell.best else f"{cell.text} ~" if cell.faint else cell.text
            for cell in row.cells
        ]
        lines.append(f"| {row.model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latex(grid: Grid) -> str:
    """As a LaTeX tabular with the rules of package booktabs: the best of a column bold, what is within the noise grey (package xcolor)."""
    lines = [r"\begin{tabular}{l" + "r" * len(grid.columns) + "}", r"\toprule"]
    lines += [" & ".join(["model", *map(_escape, grid.columns)]) + r" \\", r"\midrule"]
    for row in grid.rows:
        texts = [(_escape(cell.text), cell) for cell in row.cells]
        cells = [
            rf"\textbf{{{text}}}" if cell.best else rf"\textcolor{{gray}}{{{text}}}" if cell.faint else text
            for text, cell in texts
        ]
        lines.append(" & ".join([_escape(row.model), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _escape(text: str) -> str:
    written = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "−": "$-$",
        "±": r"$\pm$",
    }
    return "".join(written.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
