"""mergekit's recipes, run by this engine: read, translated, and refused by line where they cannot be
honoured."""

from __future__ import annotations

from selfpos.mergekit.recipe import Translation, translate_recipe

__all__ = ["Translation", "translate_recipe"]
