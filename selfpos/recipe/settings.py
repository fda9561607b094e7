"""What all settings have in common: typed, validated when read, their mistakes one sentence each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfpos.errors import SelfposError, nearest, on_one_line
from selfpos.storage.documents import parse_yaml, read_text

Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="letters, digits, '.', '_' and '-'")
]


class Settings(BaseModel):
    """Settings refuse fields they do not know, and do not change once made."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True
    )  # most commands need few of the schemas, and each takes its time


Model = TypeVar("Model", bound=Settings)


def load_settings(path: Path, model: type[Model], what: str = "recipe") -> Model:
    """Read the YAML file at `path` as a `model`, called `what` in errors.

    Raises SelfposError naming each wrong field, and the nearest right name.
    """
    if not path.is_file():
        raise SelfposError(f"there is no {what} file {path}")
    try:
        data = parse_yaml(read_text(path))
    except ValueError as error:
        raise SelfposError(f"{what} {path} cannot be read as YAML: {on_one_line(error)}") from None
    if not isinstance(data, dict):
        raise SelfposError(f"{what} {path} must be a mapping of fields, found {type(data).__name__}")
    return validate(model, data, f"{what} {path}")


def validate(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """Make a `model` from `data`. Raises one SelfposError that names every wrong field of `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_sentence(model, dict(fault)) for fault in error.errors()]
        raise SelfposError(f"{source}: " + "; ".join(faults)) from None


def _sentence(model: type[Settings], fault: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in fault["loc"] if part not in ("(one)", "(several)"))
    if fault["type"] == "extra_forbidden":
        *parents, word = fault["loc"]
        return f"there is no field '{path}'{nearest(str(word), _fields_at(model, parents))}"
    if fault["type"] == "missing":
        return f"field '{path}' is missing"
    return (
        f"field '{path}': {fault['msg'].removeprefix('Value error, ')} (found {fault['input']!r})"
        if path
        else fault["msg"].removeprefix("Value error, ")
    )


def _fields_at(model: type[Settings], path: list[Any]) -> list[str]:
    """Field names of the settings that `path` leads to, below `model`; keys of free mappings are skipped."""
    import typing

    def settings_in(annotation: Any) -> type[Settings] | None:
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            return annotation
        return next((inner for part in typing.get_args(annotation) if (inner := settings_in(part))), None)

    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = settings_in(field.annotation) or model
    return list(model.model_fields)
