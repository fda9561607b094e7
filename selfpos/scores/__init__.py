"""Score files, per-example results, measures, intervals and ranks."""

from __future__ import annotations
