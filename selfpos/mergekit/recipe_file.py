"""A YAML file with the line of everything in it, so that a fault can be pointed at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError, on_one_line
from selfpos.storage.documents import parse_yaml_all, read_text

At = tuple[str | int, ...]
"""The position of a value: keys of mappings and indices of lists that lead to it."""


@dataclass(frozen=True)
class RecipeFile:
    """The parsed file: its data, and the line of everything in it."""

    file: Path
    data: dict[str, Any]
    lines: dict[At, int]

    def fault(self, at: At, reason: str) -> SelfposError:
        """The error for what is wrong at a position, with its line or that of what contains it."""
        outwards = (at[:length] for length in range(len(at), -1, -1))
        line = next((self.lines[outer] for outer in outwards if outer in self.lines), 1)
        return SelfposError(f"{self.file}, line {line}: {reason}")

    def at(self, at: At) -> Any:
        """The value at a position, or None."""
        value: Any = self.data
        for step in at:
            if isinstance(value, dict):
                value = value.get(step)
            else:
                value = value[step] if isinstance(value, list) and isinstance(step, int) else None
        return value


def read_recipe_file(file: Path) -> list[RecipeFile]:
    """Read the YAML mappings in `file`, one per document. Raises SelfposError where one is none."""
    if not file.is_file():
        raise SelfposError(f"there is no recipe file {file}")
    try:
        documents = list(parse_yaml_all(read_text(file)))
    except ValueError as error:
        raise SelfposError(f"recipe {file} is not YAML: {on_one_line(error)}") from None
    if not documents:
        raise SelfposError(f"recipe {file} must be a mapping of fields, found nothing")
    return [_document(file, data, tree) for data, tree in documents]


def _document(file: Path, data: Any, tree: Any) -> RecipeFile:
    import yaml

    if not isinstance(data, dict):
        raise SelfposError(f"recipe {file} must be a mapping of fields, found {type(data).__name__}")
    lines: dict[At, int] = {}

    def walk(node: Any, at: At) -> None:
        lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*at, key.value)] = key.start_mark.line + 1
                walk(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, (*at, index))

    walk(tree, ())
    return RecipeFile(file, data, lines)
