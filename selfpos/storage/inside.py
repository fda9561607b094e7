"""What lies inside a model's folder: names that lead out of it are refused, and so are links."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from selfpos.errors import SelfposError, shortened
from selfpos.storage.file_kinds import is_aside

MOST_BYTES = 255  # of the name of a file or folder: no file system takes more
MOST_OF_PATH = 2_000  # bytes of a path in a folder; the whole may have 4,096
SHARED_BLOB = re.compile("[0-9a-f]{64}")  # in blobs/78/784e…, by its hash


def inside(folder: Path, name: Any, named_by: Path) -> Path:
    """The path `name`, relative to `folder`, that the file `named_by` gives.

    Raises SelfposError where it is no path, or leads out of the folder by itself or by a link.
    """
    if not isinstance(name, str) or "\0" in name or _is_too_long(name):
        shown = shortened(repr(name))
        raise SelfposError(f"{named_by} gives {shown} as the name of a file or folder; expected a short text")
    windows = PureWindowsPath(name)
    outward = PurePath(name).is_absolute() or windows.anchor or ".." in windows.parts
    if outward or leads_out(folder, folder / name):
        raise SelfposError(
            f"{named_by} names {name!r}, which lies outside {folder}; it may name only what is in that "
            "folder: put the file there, and its name in place of the path"
        )
    return folder / name


def _is_too_long(path: str) -> bool:
    raw = path.encode(errors="surrogatepass")
    return len(raw) > MOST_OF_PATH or any(len(part) > MOST_BYTES for part in raw.split(b"/"))


def leads_out(folder: Path, path: Path) -> bool:
    """Whether `path` is in truth outside `folder`. The links of the Hub's cache into its blobs are not."""
    root, real = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    if real.is_relative_to(root):
        return False
    for parent in (root, *root.parents):
        repository = parent.parent.parent
        if parent.parent.name == "snapshots" and repository.name.startswith("models--"):
            return not (real.is_relative_to(parent) or _is_blob(real, repository))
    return True


def _is_blob(real: Path, repository: Path) -> bool:
    """Whether it is a file that the Hub's cache keeps for `repository`, or for several of them."""
    shared = real.parent.parent == repository.parent / "blobs" and SHARED_BLOB.fullmatch(real.name)
    return real.parent == repository / "blobs" or bool(shared and real.name.startswith(real.parent.name))


def links_out(folder: Path) -> list[Path]:
    """The links below `folder` that lead out of it, relative to it, but for hidden ones and side folders."""
    links = (path for path in folder.rglob("*") if path.is_symlink() and leads_out(folder, path))
    return sorted(link for path in links if not is_aside(link := path.relative_to(folder)))


def refuse_links_out(folder: Path) -> None:
    """Raise SelfposError where a link in the model's folder leads out of it, or what should be a file is a
    pipe or a device, on which a reader waits.
    """
    special = (path for path in folder.rglob("*") if path.exists() and not (path.is_file() or path.is_dir()))
    if odd := next((path for path in special if not is_aside(path.relative_to(folder))), None):
        raise SelfposError(f"{odd} is a pipe or a device; put a file there, or remove it")
    if links := links_out(folder):
        more = f" (and {len(links) - 1} more)" if len(links) > 1 else ""
        raise SelfposError(
            f"{folder / links[0]} is a link to what lies outside the model's folder{more}; put the file "
            "itself there, or remove the link"
        )
