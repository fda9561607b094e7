"""The methods: each registers itself by a decorator, and its signature is its schema.

Two forms. A *combination* maps weights (and, where it asks for them, inner products) to coefficients c_i; the engine writes
θ0 + Σ c_i V_i. A *kernel* maps a chunk, `(base, [V_1..V_N], weights)` of one tensor, to the merged V of that chunk.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from selfpos.errors import SelfposError, unknown
from selfpos.merging.parameters import Parameter, read_parameters

if TYPE_CHECKING:
    from selfpos.merging.rules import Settings
    from selfpos.merging.stream import Stream

Scope = Literal["model", "tensor"]
Grain = Literal["element", "row", "matrix"]
Weighting = Literal["mean", "one", "share", "none"]
Survey = Callable[["Stream"], Mapping[str, Any]]
"""A statistics pass: reads the whole stream before anything is written, returns what the kernel is to see, by tensor key."""
Check = Callable[["Settings", Sequence[str]], None]
"""Raises SelfposError when the method cannot work with these settings at these tensors, each of which is by itself within its limits."""


@dataclass(frozen=True)
class Method:
    """One merging method and what it needs.

    `weighting`: weights absent mean 1/N each ('mean') or 1 each ('one'; 'share' as well, but none below zero and not all zero); 'none': the
    method takes no weights.
    `gram`: a combination's inner products, of whole vectors ('model') or of each tensor; `with_base`: row and column 0 belong to θ0.
    `grain`: a kernel's chunks hold any elements, whole rows, or whole matrices; `holds`: how much memory one of whole matrices takes at most, in
    matrices of the size at hand and in square ones of its width (measured). `survey`: its statistics pass.
    `probe`: names of statistics gathered from data that must be given, one file per vector (see stream.Chunk.probe). `checks`: what its settings
    must fulfil together, known before anything is read.
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
    grain: Grain = "element"
    holds: tuple[int, int] = (0, 0)
    survey: Survey | None = None
    probe: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    fewest: int = 1
    most: int | None = None
    ordered: bool = False
    random: bool = False

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def needs(self) -> str:
        """What the method needs besides base and vectors, in words."""
        parts = [f"a probe set ({name} of each vector)" for name in self.probe]
        if self.gram:
            parts.append("inner products (one more pass)")
        if self.survey is not None:
            parts.append("statistics (one more pass)")
        if self.grain == "matrix":
            parts.append("whole matrices in memory")
        if self.random:
            parts.append("a seed")
        return ", ".join(parts)

    def check_count(self, count: int) -> None:
        """Raise SelfposError when the method cannot merge `count` vectors."""
        if count < self.fewest or (self.most is not None and count > self.most):
            limit = (
                f"exactly {self.fewest}"
                if self.fewest == self.most
                else f"at least {self.fewest}"
                if count < self.fewest
                else f"at most {self.most}"
            )
            raise SelfposError(
                f"method {self.name} merges {limit} vector{'s' if limit[-1] != '1' else ''}, found {count}"
            )


METHODS: dict[str, Method] = {}


def combination(
    *,
    reference: str,
    weighting: Weighting = "one",
    gram: Scope | None = None,
    with_base: bool = False,
    checks: tuple[Check, ...] = (),
    fewest: int = 1,
    most: int | None = None,
    ordered: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `function(weights, *, parameters)`, or `function(weights, gram, *, parameters)` when it asks for inner products.

    It returns the N coefficients c_i, or with `with_base` N + 1 of them, θ0's own first. Coefficients may differ between tensors.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _add(
            function,
            reference,
            "combination",
            weighting=weighting,
            gram=gram,
            with_base=with_base,
            checks=checks,
            fewest=fewest,
            most=most,
            ordered=ordered,
        )
        return function

    return register


def kernel(
    *,
    reference: str,
    weighting: Weighting = "one",
    grain: Grain = "element",
    holds: tuple[int, int] = (0, 0),
    survey: Survey | None = None,
    probe: tuple[str, ...] = (),
    checks: tuple[Check, ...] = (),
    fewest: int = 1,
    most: int | None = None,
    ordered: bool = False,
    random: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `function(chunk, *, parameters)`, which returns the merged V of the chunk; the engine adds the base."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        options = {
            "weighting": weighting,
            "grain": grain,
            "survey": survey,
            "probe": probe,
            "fewest": fewest,
            "most": most,
        }
        _add(
            function,
            reference,
            "kernel",
            holds=holds,
            checks=checks,
            ordered=ordered,
            random=random,
            **options,
        )
        return function

    return register


def _add(
    function: Callable[..., Any], reference: str, form: Literal["combination", "kernel"], **options: Any
) -> None:
    name = function.__name__.replace("_", "-")
    if name in METHODS:
        raise ValueError(f"method {name} is registered twice")
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    METHODS[name] = Method(name, summary, reference, function, read_parameters(function), form, **options)


def get_method(name: str) -> Method:
    """The method of that name. Raises SelfposError with the nearest right name when there is none."""
    if name not in METHODS:
        raise unknown("merging method", name, METHODS)
    return METHODS[name]
