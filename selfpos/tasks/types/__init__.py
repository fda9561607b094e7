"""Task types by family; each registers itself."""

from __future__ import annotations
