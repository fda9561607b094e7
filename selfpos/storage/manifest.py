"""JSON objects in files, and the manifest `selfpos.json` of a folder, which says what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError
from selfpos.storage.atomic import write_text
from selfpos.storage.documents import parse_json, read_text
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.inside import inside


def read_json(file: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """The JSON object in `file`. Raises SelfposError that names the file when it holds none.

    With `missing_ok`, empty where there is no such file.
    """
    if missing_ok and not file.is_file():
        return {}
    try:
        data = parse_json(read_text(file))
    except ValueError as error:
        raise SelfposError(f"{file} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise SelfposError(
            f"{file} is not a JSON object; copy the original file, or let its maker write it again"
        )
    return data


def mapping(config: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    """The object under `name` in `config`, that of `file`; empty where there is none.

    Raises SelfposError when it is something else.
    """
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise SelfposError(
            f"{file} has {name} {str(value)[:100]!r}; expected an object: copy the file from the original "
            "model"
        )
    return value


def write_manifest(folder: Path, data: dict[str, Any]) -> Path:
    """Write `data` as the manifest of `folder`; returns its path."""
    file = folder / MANIFEST
    write_text(file, json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")
    return file


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, empty where it has none; a field that is null counts as missing.

    Raises SelfposError when it is no object, or a field is not as selfpos writes it.
    """
    file = folder / MANIFEST
    data = read_json(inside(folder, MANIFEST, file), missing_ok=True)
    if data:
        _check_types(file, data)
    return {name: value for name, value in data.items() if value is not None}


def made_from(manifest: dict[str, Any]) -> dict[str, Any]:
    """The name and hash of the base that the model of a manifest was made from, as far as it is known.

    A merge whose base is one of the models was given none: its base is that of this model.
    """
    recorded: dict[str, Any] = manifest.get("base", {})
    merged = manifest.get("merge", {}).get("sources") or []
    first = next((source for source in merged if source.get("hash") == recorded.get("hash")), None)
    if first is None:
        return recorded
    return {"name": f"the base of {first.get('name')}", "hash": first.get("base")}


def _check_types(file: Path, data: dict[str, Any]) -> None:
    """Raise SelfposError where a field that others read is not of the type that selfpos writes."""
    from pydantic import ValidationError

    from selfpos.storage.manifest_types import Manifest

    try:
        Manifest.model_validate(data)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        raise SelfposError(
            f"{file} has a field '{field}' that is not as selfpos writes it ({fault['msg']}); "
            "copy the original file, or remove it"
        ) from None
