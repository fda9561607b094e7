"""The version of selfpos, read by the package, by provenance and by the build."""

from __future__ import annotations

__version__ = "0.2.0.dev0"
