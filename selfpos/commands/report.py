"""`selfpos report`: the HTML report of a run."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.options import PATH, examples


@click.command(
    "report",
    epilog=examples("report checkpoints/quickstart", "report checkpoints/quickstart --figures figures"),
)
@click.argument("run", type=PATH)
@click.option(
    "--out",
    type=PATH,
    help="File to write, must not exist [default: report.html in the run's folder, replaced if it exists].",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for every figure as PNG and SVG; existing figures are replaced.",
)
def command(run: Path, out: Path | None, figures: Path | None) -> None:
    """Write the report of the run in folder RUN as one self-contained HTML file.

    Works from partial results.
    """
    from selfpos.report import write_report
    from selfpos.storage.run_folder import RunFolder

    click.echo(str(write_report(RunFolder(run), out, figures_to=figures)))
