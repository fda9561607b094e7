"""One file per task type; each registers itself."""

from __future__ import annotations
