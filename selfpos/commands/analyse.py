"""`selfpos analyse`: conflict and imbalance, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command("analyse")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write [default: RUN/analysis, or checkpoints/NAME-analysis of a recipe].",
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder with local copies of the recipe's data sets, as for run.",
)
@click.option(
    "--records",
    type=click.Choice(["probe", "training"]),
    help="Whose gradients: of the probe set or of training data [default: probe].",
)
@click.option(
    "--batches", type=click.IntRange(min=2), help="Batches of each task at each point [default: 8]."
)
@click.option("--batch-size", type=click.IntRange(min=4), help="Records in a batch [default: 32].")
@click.option(
    "--point",
    "points",
    multiple=True,
    metavar="MODEL",
    help="Measure gradients at this model of the run only; may be repeated.",
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0, min_open=True),
    help="GiB of gradients held at once [default: 1].",
)
@click.option(
    "--arms",
    is_flag=True,
    help="Train small specialists on shares of the records, for equal epochs and for equal steps.",
)
@click.option("--arm-steps", type=click.IntRange(min=4), help="Steps of the longest arm [default: 32].")
def command(target: Path, out: Path | None, data_root: Path | None, arms: bool, **given: Any) -> None:
    """Measure what drives tasks apart in TARGET, a run's folder or a recipe: the cosines of the tasks' gradients, joint models against the
    specialists, lengths and angles of the vectors, and who dominates the joint ones. Goes into the run's report."""
    from selfpos.analysis.study import analyse
    from selfpos.analysis.write import tables
    from selfpos.console import quiet_process, table_text
    from selfpos.recipe import AnalysisSettings, validate

    quiet_process()
    settings = {name: value for name, value in given.items() if value not in (None, ())} | {"arms": arms}
    folder, found = analyse(
        target, validate(AnalysisSettings, settings, "selfpos analyse"), out=out, data_root=data_root
    )
    for title, _, header, rows in tables(found):
        click.echo(table_text(header, rows, title=title))
    click.echo(f"written: {folder / 'analysis.md'}")
    if target.is_dir() and folder.parent == target:
        from selfpos.report import write_report
        from selfpos.storage.run_folder import RunFolder

        click.echo(f"report: {write_report(RunFolder(target))}")
