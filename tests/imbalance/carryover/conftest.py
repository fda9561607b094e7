"""The comparisons are tried on the imbalance room's synthetic images."""

from __future__ import annotations

from tests.imbalance.conftest import _extra, archive

__all__ = ["_extra", "archive"]
