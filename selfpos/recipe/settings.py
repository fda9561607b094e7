"""What all settings have in common: typed, validated when read, their mistakes one sentence each."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from selfpos.errors import SelfposError, nearest, on_one_line, shortened
from selfpos.storage.documents import parse_yaml, read_text

MOST_STEPS = 10**8
MOST_TOKENS = 10**6
MOST_NUMBER = 10**12  # of any other field, bytes among them
MOST_LETTERS = 10_000
MOST_ENTRIES = 10_000
MOST_FAULTS = 10  # named in one sentence
Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="letters, digits, '.', '_' and '-'",
    ),
]


class Settings(BaseModel):
    """Settings refuse fields they do not know, and do not change once made."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True
    )  # most commands need few of the schemas, and each takes its time

    @field_validator("*", mode="before")
    @classmethod
    def _within_bounds(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what no field needs: huge numbers and texts, and true where a number belongs."""
        entries = [*value, *value.values()] if isinstance(value, dict) else value
        if not isinstance(entries, list | tuple):
            entries = [value]
        if len(entries) > 2 * MOST_ENTRIES:
            raise ValueError(f"expected at most {MOST_ENTRIES:,} entries, found {len(entries):,}")
        types = list(_types_in(cls.model_fields[str(info.field_name)].annotation))
        free = Any in types  # a method's parameters, which it checks
        truths = free or any(map(_takes_truths, types))
        for entry in entries:
            if isinstance(entry, bool) and not truths:
                raise ValueError(f"expected a number or a text, found {str(entry).lower()}")
            if isinstance(entry, int | float) and not free and abs(entry) > MOST_NUMBER:
                raise ValueError(f"expected a number of at most {MOST_NUMBER:,}")
            if isinstance(entry, str) and len(entry) > MOST_LETTERS:
                raise ValueError(f"expected at most {MOST_LETTERS:,} letters, found {len(entry):,}")
        return value


def _types_in(annotation: Any) -> Iterator[Any]:
    """The annotation, and all types that it is made of."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _types_in(part)


def _takes_truths(kind: Any) -> bool:
    """Whether a value of this type may be true or false, or settings, which look at their own fields."""
    return kind is bool or (isinstance(kind, type) and issubclass(kind, Settings))


Model = TypeVar("Model", bound=Settings)


def load_settings(path: Path, model: type[Model], kind: str = "recipe") -> Model:
    """Read the YAML file at `path` as a `model`, called `kind` in errors.

    Raises SelfposError naming each wrong field, and the nearest right name.
    """
    if not path.is_file():
        raise SelfposError(f"there is no {kind} file {path}")
    try:
        data = parse_yaml(read_text(path))
    except ValueError as error:
        raise SelfposError(f"{kind} {path} is not YAML: {on_one_line(error)}") from None
    if not isinstance(data, dict):
        raise SelfposError(f"{kind} {path} must be a mapping of fields, found {type(data).__name__}")
    return validate(model, data, f"{kind} {path}")


def validate(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """Make a `model` from `data`. Raises one SelfposError that names every wrong field of `source`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = [_sentence(model, dict(fault)) for fault in error.errors()]
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise SelfposError(f"{source}: " + "; ".join(faults[:MOST_FAULTS] + more)) from None


PLAIN = {
    "dict_type": "expected a mapping, such as {name: value}",
    "model_type": "expected a mapping, such as {name: value}",
    "string_pattern_mismatch": "expected letters, digits, '.', '_' and '-', beginning with a letter or digit",
}
"""Words for faults that pydantic names by Python's."""


def _sentence(model: type[Settings], fault: dict[str, Any]) -> str:
    path = ".".join(str(part)[:100] for part in fault["loc"] if part not in ("(one)", "(several)"))
    if fault["type"] == "extra_forbidden":
        *parents, word = fault["loc"]
        return f"there is no field '{path}'{nearest(str(word), _fields_at(model, parents))}"
    if fault["type"] == "missing":
        return f"field '{path}' is missing"
    if fault["type"] == "string_type" and fault["loc"][-1] == "[key]":
        return f"field '{path.rpartition('.')[0]}': the name is no text; put it in quotes"
    reason = PLAIN.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    return f"field '{path}': {reason} (found {shortened(repr(fault['input']))})" if path else reason


def _fields_at(model: type[Settings], path: list[Any]) -> list[str]:
    """Field names of the settings that `path` leads to, below `model`; keys of free mappings are skipped."""

    def settings_in(annotation: Any) -> type[Settings] | None:
        if isinstance(annotation, type) and issubclass(annotation, Settings):
            return annotation
        return next((inner for part in typing.get_args(annotation) if (inner := settings_in(part))), None)

    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = settings_in(field.annotation) or model
    return list(model.model_fields)
