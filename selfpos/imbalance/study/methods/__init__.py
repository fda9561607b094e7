"""The study's methods, one file each; a file registers what it holds, and `registry.get_method` finds it."""

from __future__ import annotations
