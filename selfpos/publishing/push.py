"""Sending a planned model to the Hugging Face Hub."""

from __future__ import annotations

from selfpos.publishing.plan import PlannedFile, PushPlan, plan_push

__all__ = ["PlannedFile", "PushPlan", "plan_push"]
