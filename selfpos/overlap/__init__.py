"""Training text against test text."""

from __future__ import annotations
