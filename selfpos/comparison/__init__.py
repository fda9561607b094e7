"""Comparing models: scores, means and ranks, and differences to a baseline with intervals from the examples behind the scores."""

from __future__ import annotations

from selfpos.comparison.differences import Comparison, Row, compare
from selfpos.comparison.sources import Scored, find_models, models_of_run
from selfpos.scores.intervals import Difference

__all__ = ["Comparison", "Difference", "Row", "Scored", "compare", "find_models", "models_of_run"]
