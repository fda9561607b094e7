"""The files of a model folder that are worth sending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    ".safetensors",
    ".json",
    ".jsonl",
    ".txt",
    ".md",
    ".model",
    ".vocab",
    ".bpe",
    ".tiktoken",
    ".jinja",
    ".yaml",
    ".yml",
    ".parquet",
    ".png",
}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
BARE = {"LICENSE", "NOTICE", ".gitattributes"}

Content = bytes  # its name within PlannedFile, whose field `bytes` hides the type


@dataclass(frozen=True)
class PlannedFile:
    """One file to send: its path in the repository, its size, and where it is, or its content where selfpos makes it."""

    path: str
    bytes: int
    source: Path | None = None
    content: Content | None = None

    def read(self) -> Content:
        """The whole content."""
        if self.content is not None:
            return self.content
        return self.source.read_bytes() if self.source else b""


def files_of(folder: Path) -> tuple[dict[str, PlannedFile], list[str]]:
    """Path → file for what belongs to the model in `folder`, and a note on each file that is left out. Hidden files are passed over."""
    files: dict[str, PlannedFile] = {}
    notes = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = "/".join(parts)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if not path.is_file() or (hidden and name not in BARE):
            continue
        if path.name in BARE or path.suffix in KINDS:
            files[name] = PlannedFile(name, path.stat().st_size, source=path)
        else:
            notes.append(
                f"{name} is left out ({'a pickle may hold code' if path.suffix in PICKLES else 'no part of a model'})"
            )
    return files, notes


def planned(contents: Mapping[str, Path | Content]) -> dict[str, PlannedFile]:
    """Path → file for contents that are files elsewhere or made by selfpos."""
    return {
        path: PlannedFile(path, found.stat().st_size, source=found)
        if isinstance(found, Path)
        else PlannedFile(path, len(found), content=found)
        for path, found in contents.items()
    }
