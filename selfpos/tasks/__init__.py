"""Task types: what a record of a task holds, how a batch is drawn, which loss is right."""

from __future__ import annotations

from selfpos.tasks.task import TASKS, TaskType, get_task
from selfpos.tasks.types import classification, pairs, retrieval  # noqa: F401 - they register their types

__all__ = ["TASKS", "TaskType", "get_task"]
