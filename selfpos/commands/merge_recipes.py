"""mergekit's recipes under `selfpos merge`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfpos.commands.options import show_rows, without_pickles
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from selfpos.mergekit import Translation


def merge_recipes(
    recipes: list[tuple[str, Translation]],
    out: Path,
    options: dict[str, Any],
    dry_run: bool,
    allow_pickle: bool,
) -> None:
    """Carry out the recipes of a file, by name, in order; the results of all but the last do not stay."""
    from contextlib import nullcontext
    from tempfile import TemporaryDirectory

    from selfpos.operations import merge, plan_merge
    from selfpos.storage.atomic import refuse_existing

    refuse_existing(out)
    passing = len(recipes) > 1 and not dry_run
    if passing:
        out.parent.mkdir(parents=True, exist_ok=True)
        earlier = ", ".join(name for name, _ in recipes[:-1])
        click.echo(
            f"note: the results of {earlier} do not stay, so `selfpos reproduce` cannot make {out} again; to "
            "keep them, put each recipe into a file of its own",
            err=True,
        )
    folder_of_all = TemporaryDirectory(prefix=f".{out.name}.", dir=out.absolute().parent) if passing else None
    with folder_of_all or nullcontext(str(out)) as parent:
        made: dict[str, Path] = {}
        for number, (name, wanted) in enumerate(recipes, start=1):
            if dry_run and made.keys() & {wanted.base, *wanted.sources}:
                click.echo(f"then {wanted.method} of {', '.join(wanted.sources)} over {wanted.base}")
                continue
            others = {wanted.base, *wanted.sources} - made.keys()
            opened = {name: Path(without_pickles(name, allow_pickle)) for name in others if allow_pickle}
            translation = wanted.over(made | opened).fitted()
            for note in translation.notes:
                click.echo(note, err=True)
            folder = out if number == len(recipes) else Path(parent) / name
            words = (translation.base, translation.sources, translation.method, folder)
            merge_options = {**translation.options, **options}
            if dry_run:
                show_rows(plan_merge(*words, **merge_options))
            else:
                merge(*words, **merge_options)
            made[name] = folder
    if not dry_run:
        click.echo(str(out))


def recipes_of(file: Path, others: dict[str, Any]) -> list[tuple[str, Translation]]:
    """The recipes of a file by name, in order. Raises SelfposError where one cannot be carried out, and for
    those of the options `others` that are given: they would say the same otherwise.
    """
    from selfpos.mergekit import translate_recipes

    if superfluous := [option for option, value in others.items() if value]:
        raise SelfposError(f"{file} says what to merge; omit {', '.join(superfluous)}")
    return translate_recipes(file)
