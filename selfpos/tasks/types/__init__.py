"""Task types; each registers itself. A further file is a further type: nothing else names it."""

from __future__ import annotations
