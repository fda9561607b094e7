"""`selfpos overlap`: what training data shares with test data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfpos.commands.options import PATH, ManyValues, examples, split_names
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from selfpos.recipe import Recipe, TaskSource

RECIPES = (".yaml", ".yml")
WORDS = (
    "Each SOURCE is a recipe, or a name of `selfpos recipes` (its tasks are taken), or TYPE=DATA: a type of "
    "`selfpos tasks`, and data as for finetune."
)


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
    type=click.FloatRange(0.01, 1),
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


def read_sources(words: Sequence[str]) -> tuple[dict[str, TaskSource], Recipe | None]:
    """The sources that `words` name, by task or by the last part of their data, and the recipe if it is one.

    Raises SelfposError for a word that is neither, an unknown type, and when there is no word.
    """
    from selfpos.data.names import unique_name
    from selfpos.recipe import TaskSource, load_recipe
    from selfpos.recipe.shipped import shipped_recipes
    from selfpos.tasks import get_task

    if not words:
        raise SelfposError("name data: a recipe, or TYPE=DATA such as sts=stsb/train.jsonl")
    sources: dict[str, TaskSource] = {}
    recipe = None
    for word in words:
        if word.endswith(RECIPES) or word in shipped_recipes():
            recipe = load_recipe(word)
            named = dict(recipe.tasks)
        else:
            kind, equals, data = word.partition("=")
            if not (kind and equals and data):
                raise SelfposError(
                    f"'{word}' is no recipe (a .yaml file, or one of `selfpos recipes`) and not TYPE=DATA, "
                    "such as sts=stsb/train.jsonl"
                )
            named = {_name(data): TaskSource(type=get_task(kind).name, data=data)}
        for name, source in named.items():
            sources[unique_name(name, sources)] = source
    return sources, recipe if len(words) == 1 else None


def _name(data: str) -> str:
    """What to call the data, as tasks may be called."""
    from selfpos.data.names import source_name

    return re.sub(r"[^A-Za-z0-9._-]+", "-", source_name(data)).strip("-._")[:100] or "data"
