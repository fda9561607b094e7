"""Score files, results by example, measures, intervals and ranks, which the evaluation writes."""

from __future__ import annotations
