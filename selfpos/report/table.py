"""The table of a run: models as rows, evaluation tasks and their mean as columns, the best of each column marked."""

from __future__ import annotations

from selfpos.comparison.grid import Grid, Line, markdown, percent, terminal
from selfpos.report.results import RunResults, read_results
from selfpos.storage.run_folder import RunFolder


def make_table(results: RunResults) -> Grid:
    """Lay out the scores of `results`. The columns are the tasks, noted with their metrics, and then the mean."""
    tasks = list(results.tasks)
    cells = percent(
        {
            model: [*(scores.get(task) for task in tasks), results.mean(model)]
            for model, scores in results.scores.items()
        }
    )
    rows = [Line(model, results.kind(model), found) for model, found in cells.items()]
    title = f"{results.recipe.name}: scores in percent, * best of its column"
    return Grid(title, [*tasks, "mean"], [*(results.tasks[task]["metric"] for task in tasks), ""], rows)


def score_table(folder: RunFolder) -> str:
    """The table of the run in `folder` as text for a terminal."""
    return terminal(make_table(read_results(folder)))


def markdown_table(results: RunResults) -> str:
    """The table as Markdown, best of each column in bold, for a README or a model card."""
    return markdown(make_table(results))
