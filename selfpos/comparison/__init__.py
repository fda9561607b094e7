"""Comparing models: scores, means, ranks, and differences to a baseline with intervals."""

from __future__ import annotations

from selfpos.comparison.differences import Comparison, Row, compare
from selfpos.comparison.sources import Scored, find_models, models_of_run
from selfpos.scores.intervals import Difference

__all__ = ["Comparison", "Difference", "Row", "Scored", "compare", "find_models", "models_of_run"]
