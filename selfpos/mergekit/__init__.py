"""mergekit's recipes, run by this engine; what cannot be honoured is refused by its line."""

from __future__ import annotations

from selfpos.mergekit.recipe import Translation, translate_recipes

__all__ = ["Translation", "translate_recipes"]
