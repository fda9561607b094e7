"""A method's parameters, read from the signature of its function: the annotation is the schema, the default the default."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from selfpos.errors import SelfposError, unknown


@dataclass(frozen=True)
class Limits:
    """The smallest and largest value a number may take."""

    low: float = float("-inf")
    high: float = float("inf")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method. `kind` is float, int, bool or str; `choices` are the words a str may be. One `per_vector` may be given once
    for all vectors or as a list of one value per vector; the method sees a list.
    """

    name: str
    kind: type
    default: Any
    help: str
    limits: Limits
    per_vector: bool
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name if self.default is inspect.Parameter.empty else f"{self.name}={self.default}"

    def check(self, value: Any, method: str) -> Any:
        """`value` as the parameter's kind. Raises SelfposError when it is of another kind or out of its limits."""
        place = f"parameter '{self.name}' of method {method}"
        if self.choices:
            if value not in self.choices:
                raise SelfposError(f"{place} must be one of {', '.join(self.choices)}, found {value!r}")
            return value
        if self.kind is bool:
            if not isinstance(value, bool):
                raise SelfposError(f"{place} must be true or false, found {value!r}")
            return value
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not isinstance(value, int | float) or (self.kind is int and not whole):
            raise SelfposError(
                f"{place} must be {'a whole number' if self.kind is int else 'a number'}, found {value!r}"
            )
        if not self.limits.low <= value <= self.limits.high:
            raise SelfposError(
                f"{place} must lie between {self.limits.low:g} and {self.limits.high:g}, found {value!r}"
            )
        return self.kind(value)


def read_parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The keyword-only arguments of `function` as parameters. Each is annotated `Annotated[kind, help, Limits?]`; the kind of one that may
    differ between vectors is `tuple[kind, ...]`, its default a tuple of one.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for name, argument in inspect.signature(function).parameters.items():
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        annotation = hints[name]
        if typing.get_origin(annotation) is not Annotated:
            raise TypeError(
                f"{function.__name__}: parameter {name} must be annotated Annotated[kind, help, …]"
            )
        kind, *marks = typing.get_args(annotation)
        choices: tuple[str, ...] = ()
        if typing.get_origin(kind) is Literal:
            kind, choices = str, typing.get_args(kind)
        default = argument.default
        per_vector = typing.get_origin(kind) is tuple
        if per_vector:
            kind = typing.get_args(kind)[0]
            default = default[0] if isinstance(default, tuple) else default
        limits = next((mark for mark in marks if isinstance(mark, Limits)), Limits())
        text = next((mark for mark in marks if isinstance(mark, str)), "")
        found.append(Parameter(name, kind, default, text, limits, per_vector, choices))
    return tuple(found)


def check_names(parameters: tuple[Parameter, ...], given: Mapping[str, Any], method: str) -> None:
    """Raise SelfposError when a given parameter does not exist (with the nearest right name) or one without default is missing."""
    names = [parameter.name for parameter in parameters]
    for name in given:
        if name not in names:
            if not names:
                raise SelfposError(f"method {method} has no parameters, found '{name}'")
            raise unknown(f"parameter of method {method}", name, names)
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and parameter.name not in given:
            raise SelfposError(f"method {method} needs parameter '{parameter.name}': {parameter.help}")
