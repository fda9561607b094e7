"""The table of a run: models as rows, evaluation tasks and their mean as columns, the best of each column marked."""

from __future__ import annotations

from dataclasses import dataclass

from selfpos.console import table_text
from selfpos.report.results import RunResults, read_results
from selfpos.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Cell:
    """One score in percent as text; `best` among the rows of its column."""

    text: str
    best: bool


@dataclass(frozen=True)
class Row:
    model: str
    kind: str
    cells: list[Cell]


@dataclass(frozen=True)
class ScoreTable:
    """`columns` are the tasks and then the mean; `metrics` what each is measured in."""

    columns: list[str]
    metrics: list[str]
    rows: list[Row]


def make_table(results: RunResults) -> ScoreTable:
    """Lay out the scores of `results`. Scores are shown in percent with two decimals; ties share the mark."""
    tasks = list(results.tasks)
    values = {model: [*(results.scores[model].get(task) for task in tasks), results.mean(model)] for model in results.scores}
    best = [max((round(column, 4) for column in found if column is not None), default=None) for found in zip(*values.values(), strict=True)]
    rows = [
        Row(
            model,
            results.kind(model),
            [
                Cell("–" if v is None else f"{100 * v:.2f}", v is not None and round(v, 4) == top)
                for v, top in zip(found, best, strict=True)
            ],
        )
        for model, found in values.items()
    ]
    return ScoreTable([*tasks, "mean"], [results.tasks[task]["metric"] for task in tasks] + [""], rows)


def score_table(folder: RunFolder) -> str:
    """The table of the run in `folder` as text for a terminal."""
    results = read_results(folder)
    table = make_table(results)
    header = ["model", *(f"{name}\n{metric}" for name, metric in zip(table.columns, table.metrics, strict=True))]
    rows = [[row.model, *(f"[bold green]{cell.text}*[/]" if cell.best else f"{cell.text} " for cell in row.cells)] for row in table.rows]
    return table_text(header, rows, title=f"{results.recipe.name}: scores in percent, * best of its column")


def markdown_table(results: RunResults) -> str:
    """The table as Markdown, best of each column in bold, for a README or a model card."""
    table = make_table(results)
    lines = ["| model | " + " | ".join(table.columns) + " |", "|---|" + "---:|" * len(table.columns)]
    for row in table.rows:
        lines.append(f"| {row.model} | " + " | ".join(f"**{cell.text}**" if cell.best else cell.text for cell in row.cells) + " |")
    return "\n".join(lines)
