"""What to call data, by where it comes from."""

from __future__ import annotations

from collections.abc import Container
from itertools import count

from selfpos.data.folders import names_of

SPLITS = {name for split in ("train", "test", "validation") for name in names_of(split)}


def source_name(data: str) -> str:
    """The last part of a path or of a Hub name, without ending and revision; of a split's file its folder."""
    named = data.partition("@")[0] if data.startswith("hub:") else data
    parts = [part for part in named.replace(":", "/").split("/") if part not in ("", ".", "..", "~")]
    if not parts:
        return "data"
    stem = parts[-1].partition(".")[0] or parts[-1]
    return parts[-2] if stem in SPLITS and len(parts) > 1 else stem


def unique_name(name: str, used: Container[str]) -> str:
    """`name`, or the first of NAME-2, NAME-3, … that is not `used`."""
    if name not in used:
        return name
    return next(other for number in count(2) if (other := f"{name}-{number}") not in used)
