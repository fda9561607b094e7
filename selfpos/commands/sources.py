"""Data named on the command line: recipes, whose tasks are taken, or TYPE=DATA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from selfpos.recipe import Recipe, TaskSource

RECIPES = (".yaml", ".yml")
WORDS = (
    "Each SOURCE is a recipe (its tasks are taken) or TYPE=DATA: a type of `selfpos tasks`, and data as for "
    "finetune."
)


def read_sources(words: Sequence[str]) -> tuple[dict[str, TaskSource], Recipe | None]:
    """The sources that `words` name, by task or by the last part of their data, and the recipe if it is one.

    Raises SelfposError for a word that is neither, an unknown type, and when there is no word.
    """
    from selfpos.recipe import TaskSource, load_recipe
    from selfpos.tasks import get_task

    if not words:
        raise SelfposError("name data: a recipe, or TYPE=DATA such as sts=stsb/train.jsonl")
    sources: dict[str, TaskSource] = {}
    recipe = None
    for word in words:
        if word.endswith(RECIPES):
            recipe = load_recipe(Path(word))
            found = dict(recipe.tasks)
        else:
            kind, equals, data = word.partition("=")
            if not (kind and equals and data):
                raise SelfposError(
                    f"'{word}' is no recipe (a .yaml file) and not TYPE=DATA, such as sts=stsb/train.jsonl"
                )
            found = {_name(data): TaskSource(type=get_task(kind).name, data=data)}
        for name, source in found.items():
            number = 1 + sum(taken.partition("#")[0] == name for taken in sources)
            sources[name if number == 1 else f"{name}#{number}"] = source
    return sources, recipe if len(words) == 1 else None


def _name(data: str) -> str:
    """What to call the data: the last part of its path that is not a split's."""
    parts = [part for part in data.partition("@")[0].replace(":", "/").split("/") if part]
    stem = parts[-1].partition(".")[0]
    return parts[-2] if stem in ("train", "test", "validation", "dev") and len(parts) > 1 else stem
