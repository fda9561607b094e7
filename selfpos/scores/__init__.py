"""Score files, per-example results, measures, intervals and ranks: what the evaluation writes and all others
read.
"""

from __future__ import annotations
