"""`selfpos retain`: what a fine-tune learned, without what it forgot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from selfpos.commands.options import PATH, RECIPES, ManyValues, given, options_of, say
from selfpos.errors import SelfposError
from selfpos.recipe.merging import MergeOptions
from selfpos.recipe.retain import RetainSettings


@click.command("retain", cls=ManyValues)
@click.argument("base")
@click.argument("tuned", nargs=-1)
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
    help="What must be kept: the same, or MTEB tasks, by their validation splits; one half of a plain text "
    "must find the other [default: the docstrings on this machine].",
)
@click.option(
    "--data-dir", type=PATH, help="Read the data of MTEB tasks from this folder, as eval-mteb does."
)
@click.option("--out", required=True, type=PATH, help="Folder to write; must not exist.")
@options_of(RetainSettings, "promise", "keep", "alpha", "space", "index", "max_length", "seed", "device")
@options_of(MergeOptions, "dtype", budget="memory")
def command(
    base: str,
    tuned: tuple[str, ...],
    domain: tuple[str, ...],
    general: tuple[str, ...],
    data_dir: Path | None,
    out: Path,
    **options: Any,
) -> None:
    """Fine-tune without forgetting: find the front between what TUNED learned from BASE and what it forgot,
    and write the model of the best point that keeps a promise.

    Several TUNED are runs or checkpoints of one training. BASE may be a recipe (YAML), that says the rest.
    """
    from selfpos.console import quiet_process, table_text
    from selfpos.recipe import RetainRecipe, load_settings, validate
    from selfpos.retain.story import index_rows, rows, sentences
    from selfpos.retaining import retain

    quiet_process()
    options = given(options)
    merging = {name: options.pop(name) for name in ("dtype", "budget") if name in options}
    if base.endswith(RECIPES):
        if tuned or domain or general or data_dir or options:
            raise SelfposError(f"{base} says what to do; give --out alone with it, and --dtype and --memory")
        recipe = load_settings(Path(base), RetainRecipe)
    else:
        said = {"base": base, "tuned": list(tuned), "domain": list(domain), "general": list(general)}
        recipe = validate(RetainRecipe, {**said, "data_dir": data_dir, **options}, "selfpos retain")
    facts = retain(
        recipe.base,
        recipe.tuned,
        out,
        recipe.settings,
        domain=recipe.domain,
        general=recipe.general,
        data_dir=recipe.data_dir,
        say=say,
        **merging,
    )
    click.echo(table_text(*rows(facts)))
    if "index" in facts:
        click.echo(table_text(*index_rows(facts)))
    for sentence in sentences(facts):
        click.echo(sentence)
    click.echo(str(out))
