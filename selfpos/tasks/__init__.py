"""Task types: what a record of a task holds, how a batch is drawn, which loss is right. One file per type, in `types/`."""

from __future__ import annotations

from selfpos.tasks.registry import TASKS, get_task, load_types
from selfpos.tasks.task import TaskType

__all__ = ["TASKS", "TaskType", "get_task"]

load_types()
