"""The manifest `selfpos.json` of a folder: what made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.atomic import write_text

MANIFEST = "selfpos.json"


def write_manifest(folder: Path, data: dict[str, Any]) -> Path:
    """Write `data` as the manifest of `folder`; returns its path."""
    file = folder / MANIFEST
    write_text(file, json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")
    return file


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of `folder`, or None when it has none. Raises SelfposError when it is no JSON object."""
    file = folder / MANIFEST
    return read_object(file) if file.is_file() else None


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises SelfposError when it holds none."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise SelfposError(f"{file} is not a JSON object; remove it, and let its maker write it again")
    return data
