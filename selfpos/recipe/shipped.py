"""The recipes that come with the package."""

from __future__ import annotations

import re
from pathlib import Path

from selfpos.errors import SelfposError, nearest

PACKAGE = Path(__file__).parent.parent


def shipped_recipes(below: str = "") -> dict[str, Path]:
    """Name → file: in the folder `below` of `recipes/` in the package, or, from a checkout, beside it."""
    folders = (PACKAGE / "recipes", PACKAGE.parent / "recipes")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {file.stem: file for file in sorted((folder / below).glob("*.yaml"))}


def find_recipe(words: Path, below: str = "") -> Path:
    """The recipe file that `words` are the path of, or the name of one that comes with the package; of the
    companion study, whose recipes are another kind, with `below="imbalance"`.

    Raises SelfposError where there is none.
    """
    shipped = shipped_recipes(below)
    if words.is_file() or str(words) not in shipped:
        if not words.exists():
            hint = nearest(str(words), shipped) or f"; selfpos comes with {', '.join(shipped)}"
            raise SelfposError(f"there is no recipe file {words}{hint}")
        return words
    return shipped[str(words)]


def summary(recipe: Path) -> str:
    """The first sentence of the comment at the head of a recipe."""
    head = re.match(r"(?:#.*\n)*", recipe.read_text(encoding="utf-8"))
    text = " ".join(line.lstrip("# ") for line in head[0].splitlines()) if head else ""
    return re.split(r"(?<=\.) ", text)[0]
