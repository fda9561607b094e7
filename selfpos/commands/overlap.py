"""`selfpos overlap`: what training data shares with test data."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.merge import ManyValues
from selfpos.commands.sources import WORDS


class ManyTasks(ManyValues):
    many = ("--tasks",)


@click.command("overlap", cls=ManyTasks, epilog=WORDS)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option(
    "--tasks",
    multiple=True,
    metavar="TASK…",
    help="MTEB tasks [default: the recipe's; else all that --data-dir has].",
)
@click.option("--benchmark", help='An MTEB benchmark, such as "MTEB(eng, v2)".')
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder with MTEB data kept locally; nothing else is read when given.",
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder below which a recipe's tasks read what their field `local` names.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Jaccard similarity of near duplicates.",
)
@click.option("--exact", is_flag=True, help="Compare word for word only.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="File for the whole report, as JSON; must not exist."
)
@click.option(
    "--remove",
    type=click.Path(path_type=Path),
    help="Folder to write the data to without the records that overlap; must not exist.",
)
def command(
    sources: tuple[str, ...],
    tasks: tuple[str, ...],
    benchmark: str | None,
    data_dir: Path | None,
    data_root: Path | None,
    threshold: float,
    exact: bool,
    out: Path | None,
    remove: Path | None,
) -> None:
    """Say which test items of MTEB tasks each SOURCE gives away, word for word (without case, punctuation and spacing) or nearly."""
    from selfpos.commands.sources import read_sources
    from selfpos.console import quiet_process, screen, table_text
    from selfpos.overlap.contamination import HEADER, check_sources
    from selfpos.recipe import OverlapSettings
    from selfpos.storage.atomic import refuse_existing

    quiet_process()
    for place in (out, remove):
        if place is not None:
            refuse_existing(place)
    named, recipe = read_sources(sources)
    settings = OverlapSettings(remove=remove is not None, threshold=None if exact else threshold)
    names = [name for word in tasks for name in word.split(",")]
    guard = check_sources(
        named, settings, names, benchmark=benchmark, data_dir=data_dir, data_root=data_root, recipe=recipe, remove=remove
    )  # fmt: skip
    if out is not None:
        guard.write(out)
    for name, found in guard.found.items():
        if not found.rows:
            screen().print(f"{name}: none of {found.records} records gives a test item away")
    if guard.unread:
        screen().print(f"not checked, their items are not known: {', '.join(guard.unread)}")
    click.echo(table_text(HEADER, guard.rows()))
    if remove is not None:
        click.echo(f"{remove}: {', '.join(guard.found)}")
