"""`selfpos report`: the HTML report of a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write, must not exist [default: report.html in the run's folder, written anew].",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for every figure as PNG and SVG, written anew.",
)
@click.option(
    "--landscape",
    nargs=2,
    metavar="NAME NAME",
    help="First measure the probe loss over the plane of these two task vectors: minutes of forward passes.",
)
@click.option(
    "--grid",
    type=click.IntRange(min=3, max=40),
    default=8,
    show_default=True,
    help="Points of the landscape along each side.",
)
@click.option(
    "--records",
    type=click.IntRange(min=4),
    default=24,
    show_default=True,
    help="Probe records of each task, for the landscape.",
)
def command(
    run: Path,
    out: Path | None,
    figures: Path | None,
    landscape: tuple[str, str] | None,
    grid: int,
    records: int,
) -> None:
    """Write the report of the run in folder RUN as one HTML file that needs nothing else. Works from partial results."""
    from selfpos.report import write_report
    from selfpos.storage.atomic import refuse_existing
    from selfpos.storage.run_folder import RunFolder

    folder = RunFolder(run)
    if out is not None:
        refuse_existing(out)
    if landscape:
        from selfpos.console import quiet_process
        from selfpos.report.landscape import landscape_of_run

        quiet_process()
        landscape_of_run(folder, landscape, grid=grid, records=records)
    click.echo(str(write_report(folder, out, figures_to=figures)))
