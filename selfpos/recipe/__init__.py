"""The recipe: what a run does, as typed and validated settings.

Every default of the project lives here, except the parameters of merge methods.
"""

from __future__ import annotations

from selfpos.recipe.data import LocalSource, MiningSettings, ProbeSettings, TaskSource
from selfpos.recipe.merging import MergeOptions, MergeSettings
from selfpos.recipe.positioning import LEARNED, PAPER, PRESETS, PositioningSettings
from selfpos.recipe.recipe import (
    AnalysisSettings,
    EvaluationSettings,
    OverlapSettings,
    Recipe,
    ResourceSettings,
    load_recipe,
)
from selfpos.recipe.retain import RetainSettings
from selfpos.recipe.settings import Name, Settings, load_settings, validate
from selfpos.recipe.training import (
    BaggingSettings,
    BudgetSettings,
    IterativeSettings,
    JointSettings,
    LoraSettings,
    MixtureSettings,
    TrainingSettings,
    ValidationSettings,
)

__all__ = [
    "LEARNED", "PAPER", "PRESETS", "AnalysisSettings", "BaggingSettings", "BudgetSettings",
    "EvaluationSettings", "IterativeSettings", "JointSettings", "LocalSource", "LoraSettings",
    "MergeOptions", "MergeSettings", "MiningSettings", "MixtureSettings", "Name", "OverlapSettings",
    "PositioningSettings", "ProbeSettings", "Recipe", "ResourceSettings", "RetainSettings",
    "Settings", "TaskSource", "TrainingSettings", "ValidationSettings", "load_recipe", "load_settings",
    "validate",
]  # fmt: skip
