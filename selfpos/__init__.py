"""selfpos: one general text-embedding model out of many specialists."""

from __future__ import annotations

__version__ = "0.1.0"
