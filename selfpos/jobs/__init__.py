"""Jobs of a run, here or on Ray."""

from __future__ import annotations
