"""Positioning: finding the coefficients of task vectors by a probe set.

In order: live model (live, lowrank, deltas, recompute, processes) → objective (objective, draws, smooth,
folds, space, problem) → search (linearised, searches, selection, trajectory) → verdict, outcome, position.
"""

from __future__ import annotations
