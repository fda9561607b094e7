"""Scoring models with mteb: the tasks, their data, and the results."""

from __future__ import annotations

from selfpos.evaluation.run import TasksFailedError, evaluate, task_identity
from selfpos.evaluation.select import select_tasks
from selfpos.scores.files import TaskScore, read_scores

__all__ = ["TaskScore", "TasksFailedError", "evaluate", "read_scores", "select_tasks", "task_identity"]
