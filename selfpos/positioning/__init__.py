"""Positioning: learning the coefficients of task vectors from a probe set.

In order: live model (live, lowrank, deltas, recompute, processes) → objective (objective, draws, space,
problem, selection) → search (linearised, searches, trajectory) → position.
"""

from __future__ import annotations
