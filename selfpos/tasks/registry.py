"""Which task types there are. A file in `types/` that decorates its class with `register` is one more; nothing else names it."""

from __future__ import annotations

import importlib
import pkgutil

from selfpos.errors import unknown
from selfpos.tasks.task import TaskType

#: every task type under its name
TASKS: dict[str, TaskType] = {}


def register(cls: type[TaskType]) -> type[TaskType]:
    """Class decorator: make the task type known under its name. Raises ValueError on a name that is taken."""
    if cls.name in TASKS:
        raise ValueError(f"task type '{cls.name}' is registered twice")
    TASKS[cls.name] = cls()
    return cls


def load_types() -> None:
    """Import every file in `types/`, so that each registers its type."""
    from selfpos.tasks import types

    for module in pkgutil.iter_modules(types.__path__):
        importlib.import_module(f"{types.__name__}.{module.name}")


def get_task(name: str) -> TaskType:
    """The task type called `name`. Raises SelfposError with the nearest right name when there is none."""
    if name not in TASKS:
        raise unknown("task type", name, TASKS)
    return TASKS[name]
