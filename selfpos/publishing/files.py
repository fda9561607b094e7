"""The files of a model folder that are published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TEXT = {".json", ".jsonl", ".txt", ".md", ".vocab", ".bpe", ".tiktoken", ".jinja", ".yaml", ".yml"}
KINDS = TEXT | {".safetensors", ".model", ".parquet", ".png"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
NAMES = {"LICENSE", "NOTICE", ".gitattributes"}

Content = bytes  # a name for the type within PlannedFile, whose field `bytes` hides it


@dataclass(frozen=True)
class PlannedFile:
    """One file to send: its path in the repository, its size, and its path here or its generated content."""

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
    """Path → file of the model in `folder`, and a note on each file that is left out; hidden files are
    skipped.
    """
    files: dict[str, PlannedFile] = {}
    notes = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        name = "/".join(parts)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if not path.is_file() or (hidden and name not in NAMES):
            continue
        if path.name in NAMES or path.suffix in KINDS:
            files[name] = PlannedFile(name, path.stat().st_size, source=path)
        else:
            reason = "a pickle may hold code" if path.suffix in PICKLES else "no part of a model"
            notes.append(f"{name} is left out ({reason})")
    return files, notes


def planned(contents: Mapping[str, Path | Content]) -> dict[str, PlannedFile]:
    """Path → file for files elsewhere on this disk and for generated contents."""
    files = {}
    for path, content in contents.items():
        if isinstance(content, Path):
            files[path] = PlannedFile(path, content.stat().st_size, source=content)
        else:
            files[path] = PlannedFile(path, len(content), content=content)
    return files
