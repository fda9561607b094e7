"""Which files of a folder hold a split: one file, numbered parts, the layout of the Hub, or several
languages.

A folder of the Hub may say in its README which files are whose, and what its labels are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfpos.data.files import ENDINGS, LabelNames, kind_of
from selfpos.errors import SelfposError
from selfpos.storage.documents import parse_yaml
from selfpos.storage.inside import inside

PLACES = ("", "data", "{split}", "data/{split}", "default", "default/{split}")
"""Folders in which the files of a split are looked for."""
SAME = (("validation", "valid", "val", "dev"), ("test", "eval"), ("train", "training"))
"""Names of one split; the one asked for goes first."""
PART = re.compile(r"[-_.](\d+)-of-(\d+)$")
LANGUAGE = re.compile(r"^[a-z]{2,3}([-_]([a-z]{2,3}|[A-Z]{2}|[A-Z][a-z]{3}))*$")


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split in their order, the names of labels that their folder's README has, and the
    languages where the folder holds several.
    """

    files: list[Path]
    labels: LabelNames = field(default_factory=dict)
    languages: tuple[str, ...] = ()


def split_files(folder: Path, split: str) -> SplitFiles | None:
    """The files of `split` in `folder`; None where there are none.

    Raises SelfposError where one of numbered parts is missing.
    """
    listed, labels = _listed(folder, split), label_names(folder)
    if listed:
        return SplitFiles(listed, labels)
    for name in _names(split):
        for place in PLACES:
            if files := _of_split(
                folder / place.format(split=name), name, everything=place.endswith("{split}")
            ):
                return SplitFiles(files, labels)
    parts = {path.name: split_files(path, split) for path in _folders(folder) if LANGUAGE.match(path.name)}
    if parts and all(parts.values()) and len(parts) == len(_folders(folder)):
        files = [file for part in parts.values() if part for file in part.files]
        return SplitFiles(files, labels, tuple(parts))
    return None


def known_splits(folder: Path) -> list[str]:
    """What `folder` has instead: splits, and folders that may be named themselves."""
    found = {file.name.split(".")[0] for place in ("", "data") for file in _data_files(folder / place)}
    found = {PART.sub("", name) for name in found}
    return [*sorted(found), *(f"{path.name}/" for path in _folders(folder) if any(path.iterdir()))]


def _names(split: str) -> list[str]:
    same = next((names for names in SAME if split in names), (split,))
    return [split, *(name for name in same if name != split)]


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name.endswith(ENDINGS))


def _of_split(folder: Path, split: str, *, everything: bool) -> list[Path]:
    """The one file called `split` in `folder`, else its numbered parts; with `everything` all data files."""
    files = _data_files(folder)
    stems = {file: file.name[: file.name.lower().rindex(kind_of(file))] for file in files}
    exact = [file for file in files if stems[file] == split]
    if exact:
        return sorted(exact, key=lambda file: ENDINGS.index(file.name[len(split) :]))[:1]
    numbered = re.compile(rf"{re.escape(split)}[-_.]\d+([-_.]of[-_.]\d+)?([-_.][0-9a-f]+)?$")
    parts = [file for file in files if numbered.match(stems[file])] or (files if everything else [])
    _check_whole(folder, [re.sub(r"(-of-\d+)-[0-9a-f]{8,}$", r"\1", stems[file]) for file in parts])
    return parts


def _check_whole(folder: Path, stems: Iterable[str]) -> None:
    """Raise SelfposError where one of `…-00000-of-00002` is missing."""
    found: dict[tuple[str, int], set[int]] = {}
    for stem in stems:
        if part := PART.search(stem):
            found.setdefault((stem[: part.start()], int(part[2])), set()).add(int(part[1]))
    for (stem, count), numbers in found.items():
        if lacking := sorted(set(range(count)) - numbers):
            raise SelfposError(
                f"{folder} has {len(numbers)} of the {count} parts of {stem}: part {lacking[0]:05d} is "
                "missing; fetch the data set again"
            )


def label_names(folder: Path) -> LabelNames:
    """The names of labels that the README of a data set of the Hub has, in `folder` or, by configuration, in
    the folder above.
    """
    own, above = _entries(folder, "dataset_info"), _entries(folder.absolute().parent, "dataset_info")
    if folder.name != "data":  # where the files of the only configuration are
        above = [entry for entry in above if entry.get("config_name") == folder.name]
    info = _chosen(own) or _chosen(above)
    labels: dict[str, list[str]] = {}
    for feature in info.get("features") or []:
        kind = feature.get("dtype") if isinstance(feature, dict) else None
        named = kind.get("class_label", {}).get("names") if isinstance(kind, dict) else None
        if isinstance(named, dict):
            labels[feature["name"]] = [str(named[key]) for key in sorted(named, key=int)]
    return labels


def _listed(folder: Path, split: str) -> list[Path]:
    """The files that the README of a data set of the Hub names for `split`."""
    files: list[Path] = []
    for entry in _chosen(_entries(folder, "configs")).get("data_files") or []:
        if isinstance(entry, dict) and entry.get("split") in _names(split):
            patterns = entry.get("path") or []
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                inside(folder, str(pattern), folder / "README.md")
                files += sorted(path for path in folder.glob(str(pattern)) if path.name.endswith(ENDINGS))
    _check_whole(folder, [path.name[: path.name.index(".")] for path in files])
    return files


def _entries(folder: Path, field_name: str) -> list[dict[str, Any]]:
    """What the metadata of the README in `folder` says by configuration."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    try:
        card = parse_yaml(text.split("---", 2)[1]) if text.startswith("---") else {}
    except (ValueError, IndexError):
        card = {}
    entries = (card.get(field_name) if isinstance(card, dict) else None) or []
    listed = [entries] if isinstance(entries, dict) else entries
    return [entry for entry in listed if isinstance(entry, dict)]


def _chosen(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The only configuration, or the one called default; nothing where there are several others."""
    named = {str(entry.get("config_name", "default")): entry for entry in entries}
    return next(iter(named.values())) if len(named) == 1 else named.get("default", {})
