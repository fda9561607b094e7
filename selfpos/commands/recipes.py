"""`selfpos recipes`: the recipes that come with the package."""

from __future__ import annotations

import shutil

import click

from selfpos.commands.options import examples


@click.command("recipes", epilog=examples("recipes", "recipes show own-data"))
@click.argument("words", nargs=-1, metavar="[show NAME]")
def command(words: tuple[str, ...]) -> None:
    """List the recipes that come with selfpos, for `selfpos run NAME`; with `show NAME`, print one."""
    from selfpos.errors import unknown
    from selfpos.recipe.shipped import shipped_recipes, summary

    recipes = shipped_recipes()
    if not words:
        formatter = click.HelpFormatter(width=min(shutil.get_terminal_size().columns, 110))
        formatter.write_dl([(name, summary(file)) for name, file in recipes.items()])
        click.echo(formatter.getvalue().rstrip("\n"))
        return
    if len(words) != 2 or words[0] != "show":
        raise click.UsageError("write `selfpos recipes` or `selfpos recipes show NAME`")
    if words[1] not in recipes:
        raise unknown("recipe", words[1], recipes)
    click.echo(recipes[words[1]].read_text(encoding="utf-8").rstrip("\n"))
