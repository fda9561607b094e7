"""Task types: what a record of a task holds, how a batch is drawn, which loss is right."""

from __future__ import annotations

import importlib
import pkgutil

from selfpos.tasks import types
from selfpos.tasks.task import TASKS, TaskType, get_task

__all__ = ["TASKS", "TaskType", "get_task"]

for _file in pkgutil.iter_modules(types.__path__):  # each registers its types
    importlib.import_module(f"{types.__name__}.{_file.name}")
