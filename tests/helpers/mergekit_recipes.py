"""Recipes of mergekit as files, and what they become here."""

from __future__ import annotations

from pathlib import Path

from selfpos.mergekit import Translation, translate_recipes
from selfpos.merging import MergeResult, merge


def write_recipe(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def translated(file: Path) -> Translation:
    """The translation of the only recipe in `file`."""
    ((_, translation),) = translate_recipes(file)
    return translation


def merge_recipe(file: Path, out: Path) -> MergeResult:
    """The merge that `selfpos merge FILE` does."""
    asked = translated(file).fitted()
    return merge(Path(asked.base), list(map(Path, asked.sources)), asked.method, out, **asked.options)
