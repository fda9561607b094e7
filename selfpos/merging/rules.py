"""Weights and parameters that may differ between vectors and between tensors.

A value is a number (or a word, or true/false), a ramp over depth such as `0.2..0.8` (more stops are equally spaced: `0..1..0`), a list of one
value per vector where the parameter allows it (one value is for all vectors), or a mapping from rules to values. A rule is `layers.0-5`, `layers.3`, a glob over tensor names
(`*.attention.*`, `2_Dense/*`) or `default`; the first that fits a tensor counts, and `default`
where no other does, wherever it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from selfpos.errors import SelfposError
from selfpos.merging.depth import depths, layer_of
from selfpos.merging.parameters import Parameter, check_names
from selfpos.merging.registry import Method

LAYERS = re.compile(r"^layers\.(\d+)(?:-(\d+))?$")
DEFAULT = "default"


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
        values = self._at(self.weights_given, key, "weights")
        if values is None:
            return [absent] * self.count
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
        """The method's parameters at tensor `key`; those marked PerVector are lists of one value per vector."""
        return {parameter.name: self._value(parameter, key) for parameter in self.method.parameters}

    def constant(self, name: str) -> Any:
        """A parameter that must be the same for every tensor. Raises SelfposError when it is given by rules."""
        parameter = next(parameter for parameter in self.method.parameters if parameter.name == name)
        if isinstance(self.params_given.get(name), Mapping):
            raise SelfposError(
                f"parameter '{name}' of method {self.method.name} is one for the whole merge, found rules"
            )
        return self._value(parameter, "")

    def _value(self, parameter: Parameter, key: str) -> Any:
        place = f"parameter '{parameter.name}' of method {self.method.name}"
        value = self._at(self.params_given.get(parameter.name), key, place)
        value = parameter.default if value is None else value
        if not parameter.per_vector:
            return parameter.check(value, self.method.name)
        values = value if isinstance(value, list) else [value] * self.count
        if len(values) != self.count:
            raise SelfposError(f"{place} has {len(values)} values for {self.count} vectors")
        return [
            parameter.check(parameter.default if item is None else item, self.method.name) for item in values
        ]

    def _at(self, value: Any, key: str, place: str) -> Any:
        """`value` at tensor `key`, rules and ramps resolved; None where no rule fits."""
        if isinstance(value, Mapping):
            rules = ((str(rule), inner) for rule, inner in value.items())
            found = next(
                (inner for rule, inner in rules if rule != DEFAULT and fits(rule, key)), value.get(DEFAULT)
            )
            return self._at(found, key, place)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self._at(item, key, place) for item in value]
        if isinstance(value, str) and ".." in value:
            return ramp(value, self.depth.get(key, 0.0), place)
        return number(value)


def number(value: Any) -> Any:
    """`value`, as a number where it is the word for one, as which YAML takes 1e-5."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def fits(rule: str, key: str) -> bool:
    """Whether a rule is for tensor `key`."""
    if rule == DEFAULT:
        return True
    if layers := LAYERS.match(rule):
        layer = layer_of(key)
        return layer is not None and int(layers[1]) <= layer <= int(layers[2] or layers[1])
    return fnmatchcase(key, rule)


def ramp(text: str, depth: float, place: str) -> float:
    """The value at `depth` (0 to 1) of a ramp `first..last` or with more stops, linear between neighbours."""
    try:
        stops = [float(stop) for stop in text.split("..")]
    except ValueError:
        raise SelfposError(
            f"{place}: a ramp is numbers with '..' between them, such as 0.2..0.8, found '{text}'"
        ) from None
    position = depth * (len(stops) - 1)
    index = min(int(position), len(stops) - 2)
    return stops[index] + (stops[index + 1] - stops[index]) * (position - index)


def make_settings(
    method: Method, count: int, weights: Any, params: Mapping[str, Any] | None, keys: Sequence[str] = ()
) -> Settings:
    """Validated settings for the tensors `keys`. Raises SelfposError naming the weight, parameter or rule that is wrong."""
    method.check_count(count)
    params = params or {}
    check_names(method.parameters, params, method.name)
    if weights is not None and method.weighting == "none":
        raise SelfposError(
            f"method {method.name} takes no weights; use linear or task-arithmetic for a weighted merge"
        )
    settings = Settings(method, count, weights, params, depths(keys))
    for key in keys or [""]:
        settings.weights(key)
        settings.params(key)
    if keys:
        for place, value in {"weights": weights, **params}.items():
            _refuse_idle_rules(value, keys, place)
    for check in method.checks:
        check(settings, keys or [""])
    return settings


def _refuse_idle_rules(value: Any, keys: Sequence[str], place: str) -> None:
    """A rule that fits no tensor, or only such as rules before it take, is a mistyped or misplaced rule. `default` may be left none."""
    if isinstance(value, Mapping):
        left = list(keys)
        for rule, inner in value.items():
            if rule == DEFAULT:
                continue
            taken = [key for key in left if fits(str(rule), key)]
            if not taken and any(fits(str(rule), key) for key in keys):
                raise SelfposError(
                    f"{place}: the rule '{rule}' never counts, for rules before it take all its tensors; put it before them"
                )
            if not taken:
                raise SelfposError(
                    f"{place}: the rule '{rule}' fits no tensor of the model; tensors are named like {keys[0]} and {keys[-1]}"
                )
            _refuse_idle_rules(inner, taken, place)
            left = [key for key in left if key not in taken]
        if left:
            _refuse_idle_rules(value.get(DEFAULT), left, place)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _refuse_idle_rules(item, keys, place)
