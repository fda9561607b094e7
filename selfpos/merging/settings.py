"""Weights and parameters that may differ between vectors and between tensors.

A value is a number (or a word, or true/false), a ramp over depth such as `0.2..0.8` (more stops are equally
spaced: `0..1..0`), a list of one value per vector where the parameter allows it, or a mapping from rules to
values. A rule is `layers.0-5`, `layers.3`, a glob over tensor names (`*.attention.*`, `2_Dense/*`) or
`default`. The first rule that fits a tensor counts; `default` counts where no other does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from selfpos.errors import SelfposError
from selfpos.merging.method import Method, Parameter
from selfpos.vectors.names import depths, layer_number

LAYERS = re.compile(r"^layers\.(\d+)(?:-(\d+))?$")
DEFAULT = "default"
CANCELLED = 1e-8
"""Weights whose sum is smaller than this cannot be divided by it."""


@dataclass(frozen=True)
class Settings:
    """The weights and parameters of a merge of `count` vectors, for any tensor."""

    method: Method
    count: int
    weights_given: Any
    params_given: Mapping[str, Any]
    depth: Mapping[str, float] = field(default_factory=dict, repr=False)

    def weights(self, key: str) -> list[float]:
        """One weight per vector at tensor `key`."""
        absent = 1.0 / self.count if self.method.weighting == "mean" else 1.0
        values = self._resolve(self.weights_given, key, "weights")
        if not isinstance(values, list):
            values = [values] * self.count
        if len(values) != self.count:
            raise SelfposError(
                f"found {len(values)} weights for {self.count} vectors; give one per vector, in their order"
            )
        values = [absent if value is None else value for value in values]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise SelfposError(f"weights must be numbers, found {value!r}")
        if self.method.weighting == "share" and (min(values) < 0 or max(values) == 0):
            raise SelfposError(
                f"method {self.method.name} takes weights from 0 upwards that are not all 0, found {values}"
            )
        return [float(value) for value in values]

    def params(self, key: str) -> dict[str, Any]:
        """The method's parameters at tensor `key`; those per vector are lists."""
        return {parameter.name: self._value(parameter, key) for parameter in self.method.parameters}

    def constant(self, name: str) -> Any:
        """A parameter that must be the same for every tensor. Raises SelfposError for rules."""
        parameter = next(parameter for parameter in self.method.parameters if parameter.name == name)
        if isinstance(self.params_given.get(name), Mapping):
            raise SelfposError(
                f"parameter '{name}' of method {self.method.name} is one for the whole merge, found rules"
            )
        return self._value(parameter, "")

    def _value(self, parameter: Parameter, key: str) -> Any:
        label = f"parameter '{parameter.name}' of method {self.method.name}"
        value = self._resolve(self.params_given.get(parameter.name), key, label)
        if not parameter.per_vector:
            return parameter.check(parameter.default if value is None else value, self.method.name)
        values = value if isinstance(value, list) else [value] * self.count
        if len(values) != self.count:
            raise SelfposError(f"{label} has {len(values)} values for {self.count} vectors")
        values = [parameter.default if value is None else value for value in values]
        return [parameter.check(value, self.method.name) for value in values]

    def _resolve(self, value: Any, key: str, label: str) -> Any:
        """`value` at tensor `key`, rules and ramps resolved; None where no rule fits."""
        if isinstance(value, Mapping):
            rules = [str(rule) for rule in value if rule != DEFAULT]
            rule = next((rule for rule in rules if fits(rule, key)), DEFAULT)
            by_name = {str(rule): inner for rule, inner in value.items()}
            return self._resolve(by_name.get(rule), key, label)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self._resolve(item, key, label) for item in value]
        if isinstance(value, str) and ".." in value:
            return ramp(value, self.depth.get(key, 0.0), label)
        return number(value)


def number(value: Any) -> Any:
    """`value`, as a number where it is a word that reads as one: YAML takes 1e-5 for a word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def fits(rule: str, key: str) -> bool:
    """Whether a rule is for tensor `key`."""
    if rule == DEFAULT:
        return True
    if layers := LAYERS.match(rule):
        layer = layer_number(key)
        return layer is not None and int(layers[1]) <= layer <= int(layers[2] or layers[1])
    return fnmatchcase(key, rule)


def ramp(text: str, depth: float, label: str) -> float:
    """The value at `depth` (0 to 1) of a ramp `first..last` or with more stops, linear between neighbours."""
    try:
        stops = [float(stop) for stop in text.split("..")]
    except ValueError:
        raise SelfposError(
            f"{label}: a ramp is numbers with '..' between them, such as 0.2..0.8, found '{text}'"
        ) from None
    position = depth * (len(stops) - 1)
    index = min(int(position), len(stops) - 2)
    return stops[index] + (stops[index + 1] - stops[index]) * (position - index)


def make_settings(
    method: Method, count: int, weights: Any, params: Mapping[str, Any] | None, keys: Sequence[str] = ()
) -> Settings:
    """Validated settings for the tensors `keys`. Raises SelfposError naming what is wrong."""
    method.check_count(count)
    params = params or {}
    method.check_names(params)
    if weights is not None and method.weighting == "none":
        raise SelfposError(
            f"method {method.name} takes no weights; use linear or task-arithmetic for a weighted merge"
        )
    settings = Settings(method, count, weights, params, depths(keys))
    for key in keys or [""]:
        settings.weights(key)
        settings.params(key)
    if keys:
        for label, value in {"weights": weights, **params}.items():
            _refuse_unused_rules(value, keys, label)
    for check in method.checks:
        check(settings, keys or [""])
    return settings


def _refuse_unused_rules(value: Any, keys: Sequence[str], label: str) -> None:
    """Refuse a rule that fits no tensor, or only tensors that earlier rules take."""
    if isinstance(value, Mapping):
        remaining = list(keys)
        for rule, inner in value.items():
            if rule == DEFAULT:
                continue
            fitting = [key for key in remaining if fits(str(rule), key)]
            if not fitting:
                why = f"fits no tensor of the model; tensors are named like {keys[0]} and {keys[-1]}"
                if any(fits(str(rule), key) for key in keys):
                    why = "never counts, since rules before it take all its tensors; move it up"
                raise SelfposError(f"{label}: the rule '{rule}' {why}")
            _refuse_unused_rules(inner, fitting, label)
            remaining = [key for key in remaining if key not in fitting]
        if remaining:
            _refuse_unused_rules(value.get(DEFAULT), remaining, label)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _refuse_unused_rules(item, keys, label)


def check_sum(settings: Settings, keys: Sequence[str]) -> None:
    """Refuse weights that sum to 0 where they are divided by it: always, or with `normalize`."""
    for key in keys:
        weights = settings.weights(key)
        if settings.params(key).get("normalize", True) and abs(math.fsum(weights)) < CANCELLED:
            raise SelfposError(
                f"method {settings.method.name} divides the weights by their sum, which is 0 for {weights}; "
                "change one of them"
            )
