"""`selfpos retain`: what a fine-tune learned, without what it forgot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import PATH, ManyValues, given, options_of, say
from selfpos.recipe.merging import MergeOptions
from selfpos.recipe.retain import RetainSettings


@click.command("retain", cls=ManyValues)
@click.argument("base")
@click.argument("tuned", nargs=-1, required=True)
@click.option(
    "--domain",
    multiple=True,
    metavar="DATA…",
    help="What was learned: TYPE=FILE of records, a probe set, or a file or folder of plain texts, on which "
    "the fine-tune teaches [default: what finetune held out].",
)
@click.option(
    "--general",
    multiple=True,
    metavar="DATA…",
    help="What must be kept: the same; one half of a plain text must find the other [default: the docstrings "
    "on this machine].",
)
@click.option("--out", required=True, type=PATH, help="Folder to write; must not exist.")
@options_of(RetainSettings, "promise", "keep", "alpha", "space", "index", "max_length", "seed", "device")
@options_of(MergeOptions, "dtype", budget="memory")
def command(
    base: str,
    tuned: tuple[str, ...],
    domain: tuple[str, ...],
    general: tuple[str, ...],
    out: Path,
    **options: Any,
) -> None:
    """Fine-tune without forgetting: find the front between what TUNED learned from BASE and what it forgot,
    and write the model of the best point that keeps a promise.

    Several TUNED are runs or checkpoints of one training.
    """
    from selfpos.console import quiet_process, table_text
    from selfpos.recipe import validate
    from selfpos.retain.story import index_rows, rows, sentences
    from selfpos.retaining import retain

    quiet_process()
    options = given(options)
    merging = {name: options.pop(name) for name in ("dtype", "budget") if name in options}
    settings = validate(RetainSettings, options, "selfpos retain")
    facts = retain(base, tuned, out, settings, domain=domain, general=general, say=say, **merging)
    click.echo(table_text(*rows(facts)))
    if "index" in facts:
        click.echo(table_text(*index_rows(facts)))
    for sentence in sentences(facts):
        click.echo(sentence)
    click.echo(str(out))
