"""`selfpos analyse`: gradient conflict and vector lengths, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import PATH, Verb, examples, given, options_of
from selfpos.recipe.recipe import AnalysisSettings


@click.command(
    "analyse",
    cls=Verb,
    epilog=examples("analyse checkpoints/quickstart", "analyse english --out english-analysis"),
)
@click.argument("target", type=PATH)
@click.option(
    "--out",
    type=PATH,
    help="Folder to write [default: RUN/analysis, or checkpoints/NAME-analysis of a recipe].",
)
@click.option("--data-root", type=PATH, help="Local copies of the recipe's data, as for run.")
@options_of(
    AnalysisSettings, "records", "batches", "batch_size", "memory", "arms", "arm_steps", points="point"
)
def command(target: Path, out: Path | None, data_root: Path | None, **values: Any) -> None:
    """Measure what drives tasks apart in TARGET: a run's folder, a recipe, or a name of `selfpos recipes`.

    Measured are the cosines of the tasks' gradients, and lengths and angles of the task vectors. The run's
    report includes the result.
    """
    from selfpos.analysis.findings import tables
    from selfpos.analysis.study import analyse
    from selfpos.console import quiet_process, table_text
    from selfpos.recipe import validate

    quiet_process()
    settings = validate(AnalysisSettings, given(values), "selfpos analyse")
    folder, findings = analyse(target, settings, out=out, data_root=data_root)
    for table in tables(findings):
        click.echo(table_text(table.header, table.rows, title=table.title))
    click.echo(f"written: {folder / 'analysis.md'}")
    if target.is_dir() and folder.parent == target:
        from selfpos.report import report_of_run
        from selfpos.storage.run_folder import RunFolder

        click.echo(f"report: {report_of_run(RunFolder(target))}")
