"""Which files of a folder hold a split: one file, numbered parts, the layout of the Hub, or several
languages.

A folder of the Hub may say in its README which files are whose (`card.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from selfpos.data.card import chosen, read_card
from selfpos.data.columnar import reading
from selfpos.data.files import ENDINGS, kind_of
from selfpos.errors import SelfposError
from selfpos.storage.inside import inside
from selfpos.storage.manifest import read_json

if TYPE_CHECKING:
    from datasets import Dataset

PLACES = ("", "data", "{split}", "data/{split}", "default", "default/{split}")
"""Folders in which the files of a split are looked for."""
SAME = (("validation", "valid", "val", "dev"), ("test", "eval"), ("train", "training"))
"""Names of one split; the one asked for goes first."""
PART = re.compile(r"[-_.](\d+)-of-(\d+)$")
LANGUAGE = re.compile(r"^[a-z]{2,3}([-_]([a-z]{2,3}|[A-Z]{2}|[A-Z][a-z]{3}))*$")


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split in their order, the name that the split has there, and the languages where the
    folder holds several.
    """

    files: list[Path]
    name: str
    languages: tuple[str, ...] = ()


def split_files(folder: Path, split: str) -> SplitFiles | None:
    """The files of `split` in `folder`, or of another name of it; None where there are none.

    Raises SelfposError where one of numbered parts is missing, or the README cannot be read.
    """
    if listed := _listed(folder, split):
        return listed
    for name in names_of(split):
        for pattern in PLACES:
            if files := _of_split(
                folder / pattern.format(split=name), name, everything=pattern.endswith("{split}")
            ):
                return SplitFiles(files, name)
    parts = {path.name: split_files(path, split) for path in _folders(folder) if LANGUAGE.match(path.name)}
    filled = [part for part in parts.values() if part]
    if filled and len(filled) == len(_folders(folder)):
        names = ", ".join(dict.fromkeys(part.name for part in filled))
        return SplitFiles([file for part in filled for file in part.files], names, tuple(parts))
    return None


def known_splits(folder: Path) -> list[str]:
    """What `folder` has instead: splits, and folders that may be named themselves."""
    names = {file.name.split(".")[0] for parent in ("", "data") for file in _data_files(folder / parent)}
    names = {PART.sub("", name) for name in names}
    return [*sorted(names), *(f"{path.name}/" for path in _folders(folder) if any(path.iterdir()))]


def names_of(split: str) -> list[str]:
    """`split`, and the other names that it has."""
    same = next((names for names in SAME if split in names), (split,))
    return [split, *(name for name in same if name != split)]


def saved_splits(folder: Path) -> dict[str, Dataset] | None:
    """Split → its records in a folder of `save_to_disk`, under '' where it is one set; None for others.

    Raises SelfposError where it is damaged.
    """
    several = (folder / "dataset_dict.json").is_file()
    beside = (folder / "dataset_info.json").is_file() or any(folder.glob("*.arrow"))
    if not several and not ((folder / "state.json").is_file() and beside):
        return None
    from datasets import load_from_disk

    with reading(folder):
        names = read_json(folder / "dataset_dict.json")["splits"] if several else [""]
        states = {name: read_json(folder / name / "state.json") for name in names}
        # datasets itself fails on a split without a record
        return {
            name: load_from_disk(str(folder / name)) for name, state in states.items() if state["_data_files"]
        }


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_data(path))


def _is_data(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS) and path.is_file()


def _of_split(folder: Path, split: str, *, everything: bool) -> list[Path]:
    """The one file called `split` in `folder`, else its numbered parts; with `everything` all data files."""
    files = _data_files(folder)
    stems = {file: file.name[: file.name.lower().rindex(kind_of(file))] for file in files}
    exact = [file for file in files if stems[file] == split]
    if exact:
        return sorted(exact, key=lambda file: ENDINGS.index(file.name[len(split) :].lower()))[:1]
    numbered = re.compile(rf"{re.escape(split)}[-_.]\d+([-_.]of[-_.]\d+)?([-_.][0-9a-f]+)?$")
    parts = [file for file in files if numbered.match(stems[file])] or (files if everything else [])
    _check_whole(folder, [re.sub(r"(-of-\d+)-[0-9a-f]{8,}$", r"\1", stems[file]) for file in parts])
    return parts


def _check_whole(folder: Path, stems: Iterable[str]) -> None:
    """Raise SelfposError where one of `…-00000-of-00002` is missing."""
    numbers_of: dict[tuple[str, int], set[int]] = {}
    for stem in stems:
        if part := PART.search(stem):
            numbers_of.setdefault((stem[: part.start()], int(part[2])), set()).add(int(part[1]))
    for (stem, count), numbers in numbers_of.items():
        first = int(0 not in numbers and count in numbers)  # some count from 1
        if len(numbers) < count:
            missing = sorted({*range(first, first + count)} - numbers)
            raise SelfposError(
                f"{folder} has {len(numbers)} of the {count} parts of {stem}: part {missing[0]:05d} is "
                "missing; fetch the data set again"
            )


def _listed(folder: Path, split: str) -> SplitFiles | None:
    """The files that the README of a data set of the Hub names for `split`, or for another name of it."""
    config = chosen(read_card(folder).configs)
    paths = _paths_below(folder) if config and config.data_files else []
    for name in names_of(split):
        entries = [entry for entry in config.data_files if entry.split == name] if config else []
        patterns = [pattern for entry in entries for pattern in entry.path]
        files = list(
            dict.fromkeys(file for pattern in patterns for file in _matching(paths, folder, pattern))
        )
        _check_whole(folder, [file.name[: file.name.index(".")] for file in files])
        if files:
            return SplitFiles(files, name)
    return None


def _paths_below(folder: Path) -> list[PurePosixPath]:
    """The data files below `folder`, relative to it, but for hidden ones."""
    paths = (PurePosixPath(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if _is_data(path))
    return [path for path in paths if not any(part.startswith(".") for part in path.parts)]


def _matching(paths: Iterable[PurePosixPath], folder: Path, pattern: str) -> list[Path]:
    """Those of the data files below `folder` that fit a pattern of the Hub; `**` stands for any folders."""
    inside(folder, pattern, folder / "README.md")
    wanted = PurePosixPath(re.sub(r"\*\*(?=[^/])", "**/*", pattern)).parts
    return [folder / path for path in paths if _fits(path.parts, wanted)]


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether the parts of a path are those of a pattern."""
    reached = {0}  # how many of the pattern's parts those of the path so far may have used
    for part in parts:
        for at in range(len(wanted) - 1):
            if at in reached and wanted[at] == "**":  # no folder at all
                reached.add(at + 1)
        reached = {
            after
            for at in reached
            if at < len(wanted)
            for after in ((at, at + 1) if wanted[at] == "**" else (at + 1,))
            if wanted[at] == "**" or fnmatchcase(part, wanted[at])
        }
    return len(wanted) in reached
