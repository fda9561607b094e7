"""Texts without labels as a task: a teacher judges them (`positioning/teaching.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from selfpos.tasks.task import TaskType

GENERAL = "general"  # the task of texts on which the base is the teacher


class TextsTask(TaskType):
    """Texts alone. No model learns from them, so the type is not registered."""

    name = "texts"
    summary = "texts without labels"
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {"text": ("text",)}
    text_columns = ("text",)


TEXTS = TextsTask()
