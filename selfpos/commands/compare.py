"""`selfpos compare`: models against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import PATH, Verb, examples


@click.command(
    "compare",
    cls=Verb,
    epilog=examples(
        "compare merged BAAI/bge-m3 --baseline BAAI/bge-m3", "compare checkpoints/quickstart --out table.md"
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL|RUN…")
@click.option(
    "--baseline",
    help="The model that differences are to [default: the base where it is known, else the first].",
)
@click.option("--scores", type=PATH, help="Scores of models outside runs [default: checkpoints/scores].")
@click.option(
    "--out",
    "outputs",
    multiple=True,
    type=PATH,
    help="Also write to this .md, .tex, .csv or .json; may be repeated.",
)
@click.option(
    "--draws",
    type=click.IntRange(100, 1_000_000),
    default=10_000,
    show_default=True,
    help="Resamples behind the intervals.",
)
@click.option(
    "--level", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True, help="Of the intervals."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def command(models: tuple[str, ...], scores: Path | None, outputs: tuple[Path, ...], **options: Any) -> None:
    """Compare models that `selfpos eval-mteb` or a run has scored; nothing is scored.

    MODEL is a model or a folder of scores, RUN the folder of a run with all of its models. Models of runs of
    one recipe with different seeds are taken together, as repetitions.
    """
    from selfpos.comparison import compare, find_models
    from selfpos.comparison.tables import check_outputs, text, write
    from selfpos.console import progress, quiet_process

    quiet_process()
    check_outputs(list(outputs))
    scored = find_models(models, scores or Path("checkpoints") / "scores")
    tasks = {task for model in scored for run in model.runs.values() for task in run}
    with progress("comparing", len(tasks), unit="tasks") as bar:
        comparison = compare(scored, tick=lambda task: bar.advance(1, task=task), **options)
    click.echo(text(comparison))
    for file in outputs:
        write(comparison, file)
        click.echo(str(file))
