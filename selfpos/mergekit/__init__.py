"""mergekit's recipes, run by this engine: the format read, its methods and parameters translated, what cannot be honoured named by its line."""

from __future__ import annotations

from selfpos.mergekit.recipe import merge_recipe, recipe_arguments, translate_recipe

__all__ = ["merge_recipe", "recipe_arguments", "translate_recipe"]
