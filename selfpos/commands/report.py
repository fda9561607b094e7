"""`selfpos report`: the HTML report of a run, of models, or of a folder of scores."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.options import PATH, Verb, examples


@click.command(
    "report",
    cls=Verb,
    epilog=examples(
        "report checkpoints/quickstart --figures figures",
        "report BAAI/bge-m3 merged --scores scores --out merged.html",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="RUN|SCORES|MODEL…")
@click.option("--scores", type=PATH, help="Scores of models outside runs [default: checkpoints/scores].")
@click.option(
    "--out",
    type=PATH,
    help="File to write, must not exist [default: report.html; of a run the one in its folder, replaced if "
    "it exists].",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for every figure as PNG and SVG; existing figures are replaced.",
)
def command(names: tuple[str, ...], scores: Path | None, out: Path | None, figures: Path | None) -> None:
    """Write a report as one self-contained HTML file: of the run in folder RUN, of a folder of scores, or of
    models beside each other.

    It shows what there is: scores and differences, coefficients and where they come from.
    """
    from selfpos.console import quiet_process
    from selfpos.report import read_run, write_report
    from selfpos.report.of_models import read_models
    from selfpos.storage.run_folder import RunFolder

    quiet_process()
    run = RunFolder(Path(names[0]))
    if len(names) == 1 and run.recipe.is_file():
        written = write_report(read_run(run), out or run.report, replace=out is None, figures_to=figures)
    else:
        results = read_models(names, scores or Path("checkpoints") / "scores")
        written = write_report(results, out or Path("report.html"), figures_to=figures)
    click.echo(str(written))
