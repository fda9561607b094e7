"""What a merging method is: a function whose signature is its schema, and what it needs.

A *combination* maps weights (and inner products, where it asks for them) to coefficients c_i; the engine
writes θ0 + Σ c_i V_i. A *kernel* maps a chunk of one tensor (base, vectors, weights) to the merged V of it.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from selfpos.errors import SelfposError, unknown

Scope = Literal["model", "tensor"]
Chunking = Literal["element", "row", "matrix"]
Weighting = Literal["mean", "one", "share", "none"]


ANY_NUMBER = (-math.inf, math.inf)
Share = Annotated[float, (0, 1)]  # with the smallest and largest value
NotNegative = Annotated[float, (0, math.inf)]
PerVector = tuple[Share, ...]
"""A share given once for all vectors, or a list with one per vector; the method gets a list."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method. `kind` is float, int, bool or str; a str is one of `choices`."""

    name: str
    kind: type
    default: Any
    help: str
    limits: tuple[float, float] = ANY_NUMBER
    per_vector: bool = False
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={self.default}"

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    def check(self, value: Any, method: str) -> Any:
        """`value` as the parameter's kind. Raises SelfposError for another kind, or out of its limits."""
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        number = isinstance(value, int | float) and not isinstance(value, bool)
        expected = ""
        if self.choices:
            expected = "" if value in self.choices else f"be one of {', '.join(self.choices)}"
        elif self.kind is bool:
            expected = "" if isinstance(value, bool) else "be true or false"
        elif not number or (self.kind is int and not whole):
            expected = "be a whole number" if self.kind is int else "be a number"
        elif not self.limits[0] <= value <= self.limits[1]:
            expected = f"lie between {self.limits[0]:g} and {self.limits[1]:g}"
        if expected:
            raise SelfposError(f"parameter '{self.name}' of method {method} must {expected}, found {value!r}")
        return self.kind(value)


@dataclass(frozen=True)
class Method:
    """One merging method and what it needs.

    weighting: absent weights are 1/N each ('mean') or 1 each ('one', and 'share', which allows no negative
        weights and not only zeros); 'none': the method takes no weights.
    gram: the inner products a combination asks for, of whole vectors ('model') or per tensor. with_base:
        their first row and column belong to θ0.
    chunking: a kernel's chunks hold any elements, whole rows, or whole matrices. holds: the memory for a
        whole matrix, in matrices of its size and in square ones of its width (measured).
    statistics_pass: reads the whole stream first, `reads` times; returns by tensor key what the kernel gets.
    probe: names of data statistics that must be given, one file per vector (see stream.Chunk.probe).
    checks: raise SelfposError for settings that are each within limits but do not work together.
    fewest, most: numbers of vectors. random: a seed is needed.
    """

    name: str
    summary: str
    reference: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    form: Literal["combination", "kernel"]
    weighting: Weighting = "one"
    gram: Scope | None = None
    with_base: bool = False
    chunking: Chunking = "element"
    holds: tuple[int, int] = (0, 0)
    statistics_pass: Callable[..., Mapping[str, Any]] | None = None
    reads: int = 1
    probe: tuple[str, ...] = ()
    checks: tuple[Callable[..., None], ...] = ()
    fewest: int = 1
    most: int | None = None
    random: bool = False

    @property
    def doc(self) -> str:
        """Formula, parameters, source and use."""
        return inspect.getdoc(self.function) or ""

    @property
    def needs(self) -> str:
        """What the method needs besides base and vectors, in words."""
        needs = [f"a probe set ({name} of each vector)" for name in self.probe]
        if self.gram:
            needs.append("inner products (one more pass)")
        if self.statistics_pass is not None:
            count = "one more pass" if self.reads == 1 else f"{self.reads} more passes"
            needs.append(f"statistics ({count})")
        if self.chunking == "matrix":
            needs.append("whole matrices in memory")
        if self.random:
            needs.append("a seed")
        return ", ".join(needs)

    def check_count(self, count: int) -> None:
        """Raise SelfposError when the method cannot merge `count` vectors."""
        if count < self.fewest or (self.most is not None and count > self.most):
            limit = f"at least {self.fewest}" if self.most is None else f"at most {self.most}"
            if self.most == self.fewest:
                limit = f"exactly {self.fewest}"
            plural = "" if limit.endswith(" 1") else "s"
            raise SelfposError(f"method {self.name} merges {limit} vector{plural}, found {count}")

    def check_names(self, parameters: Mapping[str, Any]) -> None:
        """Raise SelfposError when a given parameter does not exist or one without default is missing."""
        names = [parameter.name for parameter in self.parameters]
        for name in parameters:
            if not names:
                raise SelfposError(f"method {self.name} has no parameters, found '{name}'")
            if name not in names:
                raise unknown(f"parameter of method {self.name}", name, names)
        for parameter in self.parameters:
            if parameter.required and parameter.name not in parameters:
                raise SelfposError(f"method {self.name} needs parameter '{parameter.name}': {parameter.help}")


METHODS: dict[str, Method] = {}
Register = Callable[[Callable[..., Any]], Callable[..., Any]]


def combination(*, reference: str, **needs: Any) -> Register:
    """Register `function(weights, *, parameters)`, or `function(weights, gram, *, parameters)` with `gram`.

    It returns the N coefficients c_i, or with `with_base` N + 1 of them, that of θ0 first; they may differ
    between tensors. `needs` are fields of Method.
    """
    return lambda function: _register(function, reference, "combination", needs)


def kernel(*, reference: str, **needs: Any) -> Register:
    """Register `function(chunk, *, parameters)`, which returns the merged V; the engine adds the base."""
    return lambda function: _register(function, reference, "kernel", needs)


def _register(
    function: Callable[..., Any],
    reference: str,
    form: Literal["combination", "kernel"],
    needs: dict[str, Any],
) -> Callable[..., Any]:
    name = function.__name__.replace("_", "-")
    if name in METHODS:
        raise ValueError(f"method {name} is registered twice")
    summary = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    METHODS[name] = Method(name, summary, reference, function, read_parameters(function), form, **needs)
    return function


def get_method(name: str) -> Method:
    """The method of that name. Raises SelfposError with the nearest right name when there is none."""
    if name not in METHODS:
        raise unknown("merging method", name, METHODS)
    return METHODS[name]


def read_parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """The keyword-only arguments of `function`, their help from the `Args:` section of its docstring."""
    hints = typing.get_type_hints(function, include_extras=True)
    arguments = inspect.signature(function).parameters.values()
    helps = _documented_arguments(inspect.getdoc(function) or "")
    return tuple(
        _parameter(argument.name, hints[argument.name], argument.default, helps.get(argument.name, ""))
        for argument in arguments
        if argument.kind is inspect.Parameter.KEYWORD_ONLY
    )


def _parameter(name: str, annotation: Any, default: Any, help_text: str) -> Parameter:
    """`annotation`: a kind, `Annotated[kind, limits]`, a Literal of words, or a tuple of one per vector."""
    per_vector = typing.get_origin(annotation) is tuple
    if per_vector:
        annotation = typing.get_args(annotation)[0]
        default = default[0]
    limits = ANY_NUMBER
    if typing.get_origin(annotation) is Annotated:
        annotation, limits = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return Parameter(name, str, default, help_text, choices=typing.get_args(annotation))
    return Parameter(name, annotation, default, help_text, limits, per_vector)


def _documented_arguments(doc: str) -> dict[str, str]:
    section = re.search(r"^Args:\n((?:    .*\n?)+)", doc, re.MULTILINE)
    lines = re.sub(r"\n {8,}", " ", section[1] if section else "")
    return dict(re.findall(r"^    (\w+): (.*?)\.?$", lines, re.MULTILINE))
