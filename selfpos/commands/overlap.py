"""`selfpos overlap`: what training data shares with test data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import PATH, WORDS, ManyValues, examples, split_names


@click.command(
    "overlap",
    cls=ManyValues,
    epilog=examples(
        "overlap english --tasks STSBenchmark",
        "overlap sts=pairs.jsonl --tasks STSBenchmark --remove clean",
        before=WORDS,
    ),
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option(
    "--tasks",
    multiple=True,
    metavar="TASK…",
    help="MTEB tasks [default: the recipe's; else all that --data-dir has].",
)
@click.option("--benchmark", help='An MTEB benchmark, such as "MTEB(eng, v2)".')
@click.option("--data-dir", type=PATH, help="Local copies of MTEB data; nothing else is read.")
@click.option("--data-root", type=PATH, help="Local copies of a recipe's data sets.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    show_default=True,
    help="Jaccard similarity of near duplicates.",
)
@click.option("--exact", is_flag=True, help="Compare word for word only.")
@click.option("--out", type=PATH, help="JSON file for the whole report; must not exist.")
@click.option("--remove", type=PATH, help="Folder for the data without overlapping records; must not exist.")
def command(
    sources: tuple[str, ...],
    tasks: tuple[str, ...],
    threshold: float,
    exact: bool,
    out: Path | None,
    remove: Path | None,
    **options: Any,
) -> None:
    """Say which test items of MTEB tasks each SOURCE contains, word for word or nearly.

    Case, punctuation and spacing do not count.
    """
    from selfpos.commands.options import read_sources
    from selfpos.console import quiet_process, table_text, tell
    from selfpos.overlap.contamination import HEADER, check_sources
    from selfpos.recipe import OverlapSettings
    from selfpos.storage.atomic import refuse_existing

    quiet_process()
    for path in (out, remove):
        if path is not None:
            refuse_existing(path)
    named, recipe = read_sources(sources)
    settings = OverlapSettings(remove=remove is not None, threshold=None if exact else threshold)
    check = check_sources(named, settings, split_names(tasks), recipe=recipe, remove=remove, **options)
    if out is not None:
        check.write(out)
    for name, overlap in check.overlaps.items():
        if not overlap.rows:
            tell(f"{name}: none of {overlap.records} records contains a test item")
    if check.unread:
        tell(f"not checked, their items are not known: {', '.join(check.unread)}")
    click.echo(table_text(HEADER, check.rows()))
    if remove is not None:
        click.echo(f"{remove}: {', '.join(check.overlaps)}")
