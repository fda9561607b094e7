"""A YAML file with the line of everything in it, so that a fault can be pointed at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError

Place = tuple[str | int, ...]
"""The way to a value: keys of mappings, indices of lists."""


@dataclass(frozen=True)
class RecipeFile:
    """The parsed file: its data, and the line of every place in it."""

    file: Path
    data: dict[str, Any]
    lines: dict[Place, int]

    def fault(self, place: Place, reason: str) -> SelfposError:
        """The error for what is wrong at a place, with its line or that of what holds it."""
        line = next(
            (
                self.lines[place[:length]]
                for length in range(len(place), -1, -1)
                if place[:length] in self.lines
            ),
            1,
        )
        return SelfposError(f"{self.file}, line {line}: {reason}")

    def at(self, place: Place) -> Any:
        """The value at a place, or None."""
        found: Any = self.data
        for step in place:
            found = found.get(step) if isinstance(found, dict) else found[step] if found is not None else None
        return found


def read_recipe_file(file: Path) -> RecipeFile:
    """Read the YAML mapping in `file`. Raises SelfposError when it is none."""
    import yaml

    if not file.is_file():
        raise SelfposError(f"there is no recipe file {file}")
    try:
        text = file.read_text(encoding="utf-8")
        data, tree = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SelfposError(f"recipe {file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise SelfposError(f"recipe {file} must be a mapping of fields, found {type(data).__name__}")
    lines: dict[Place, int] = {}

    def walk(node: Any, place: Place) -> None:
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*place, key.value)] = key.start_mark.line + 1
                walk(value, (*place, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, (*place, index))

    walk(tree, ())
    return RecipeFile(file, data, lines)
