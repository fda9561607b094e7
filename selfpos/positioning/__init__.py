"""Positioning: finding the coefficients of task vectors from a probe set."""

from __future__ import annotations

from selfpos.positioning.position import Position, position

__all__ = ["Position", "position"]
