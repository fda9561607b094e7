"""What a merge writes: weights or an adapter, the files beside them, and where they come from."""

from __future__ import annotations
