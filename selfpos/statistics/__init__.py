"""Statistics of specialists on a probe set, which data-driven merging methods ask for: one file per kind, gathered streamed to disk."""

from __future__ import annotations

from selfpos.statistics.gather import check, check_probe, gathered, probe_hash

__all__ = ["check", "check_probe", "gathered", "probe_hash"]
