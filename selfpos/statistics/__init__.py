"""What data-driven methods gather from specialists on a probe set: Fisher and Gram matrices."""

from __future__ import annotations

from selfpos.statistics.gather import check, check_probe, gathered, probe_hash

__all__ = ["check", "check_probe", "gathered", "probe_hash"]
