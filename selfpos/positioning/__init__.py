"""Positioning: learning the coefficients of task vectors from a probe set.

In order: live model (live, lowrank, deltas, recompute, processes) → objective (objective, draws, space,
problem, selection) → search (linearised, searches, trajectory, uncertainty) → position.
"""

from __future__ import annotations

from selfpos.positioning.position import Position, position

__all__ = ["Position", "position"]
