"""Models on disk: located, opened lazily, hashed, and written whole or not at all."""

from __future__ import annotations
