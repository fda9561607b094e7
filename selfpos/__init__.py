"""selfpos: one general text-embedding model out of many specialists.

Names are imported when first used, so that `import selfpos` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from selfpos.version import __version__ as __version__

if TYPE_CHECKING:
    from selfpos.data.probe import hold_out, read_probe, write_probe
    from selfpos.data.sources import load_source
    from selfpos.evaluation import evaluate, read_scores, select_tasks
    from selfpos.operations import finetune, merge, probe_of
    from selfpos.pipeline.run import run_recipe
    from selfpos.positioning.position import position
    from selfpos.recipe import (
        PositioningSettings,
        Recipe,
        RetainSettings,
        TaskSource,
        TrainingSettings,
        load_recipe,
    )
    from selfpos.retaining import retain
    from selfpos.searched_merge import merge_by_coefficients, position_and_merge
    from selfpos.sweep import merge_sweep, read_sweep
    from selfpos.tasks import get_task
    from selfpos.vectors import gram, open_vectors

__all__ = [
    "PositioningSettings", "Recipe", "RetainSettings", "TaskSource", "TrainingSettings", "evaluate",
    "finetune", "get_task", "gram", "hold_out", "load_recipe", "load_source", "merge",
    "merge_by_coefficients", "merge_sweep", "open_vectors", "position", "position_and_merge", "probe_of",
    "read_probe", "read_scores", "read_sweep", "retain", "run_recipe", "select_tasks", "write_probe",
]  # fmt: skip

_HOMES = {
    "selfpos.data.probe": ("hold_out", "read_probe", "write_probe"),
    "selfpos.data.sources": ("load_source",),
    "selfpos.evaluation": ("evaluate", "read_scores", "select_tasks"),
    "selfpos.operations": ("finetune", "merge", "probe_of"),
    "selfpos.searched_merge": ("merge_by_coefficients", "position_and_merge"),
    "selfpos.pipeline.run": ("run_recipe",),
    "selfpos.retaining": ("retain",),
    "selfpos.positioning.position": ("position",),
    "selfpos.recipe": (
        *("PositioningSettings", "Recipe", "RetainSettings", "TaskSource", "TrainingSettings"),
        "load_recipe",
    ),
    "selfpos.sweep": ("merge_sweep", "read_sweep"),
    "selfpos.tasks": ("get_task",),
    "selfpos.vectors": ("gram", "open_vectors"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'selfpos' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
