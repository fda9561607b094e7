"""Weights and parameters that may differ between vectors and between tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfpos.errors import SelfposError
from selfpos.merging.parameters import Parameter, check_names
from selfpos.merging.registry import Method


@dataclass(frozen=True)
class Settings:
    """The weights and parameters of a merge of `count` vectors, for any tensor."""

    method: Method
    count: int
    weights_given: Any
    params_given: Mapping[str, Any]

    def weights(self, key: str) -> list[float]:
        """One weight per vector at tensor `key`."""
        if self.weights_given is None:
            return [1.0 / self.count if self.method.weighting == "mean" else 1.0] * self.count
        return [float(weight) for weight in self.weights_given]

    def params(self, key: str) -> dict[str, Any]:
        """The method's parameters at tensor `key`; those marked PerVector are lists of one value per vector."""
        return {parameter.name: self._value(parameter) for parameter in self.method.parameters}

    def constant(self, name: str) -> Any:
        """A parameter that is the same for every tensor."""
        return self._value(next(parameter for parameter in self.method.parameters if parameter.name == name))

    def _value(self, parameter: Parameter) -> Any:
        value = self.params_given.get(parameter.name, parameter.default)
        if not parameter.per_vector:
            return parameter.check(value, self.method.name)
        values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value] * self.count
        if len(values) != self.count:
            raise SelfposError(
                f"parameter '{parameter.name}' of method {self.method.name} has {len(values)} values for {self.count} vectors"
            )
        return [parameter.check(item, self.method.name) for item in values]


def make_settings(method: Method, count: int, weights: Any, params: Mapping[str, Any] | None) -> Settings:
    """Validated settings. Raises SelfposError naming the weight or parameter that is wrong."""
    method.check_count(count)
    params = params or {}
    check_names(method.parameters, params, method.name)
    if weights is not None:
        if method.weighting == "none":
            raise SelfposError(f"method {method.name} takes no weights; use linear or task-arithmetic for a weighted merge")
        if len(weights) != count:
            raise SelfposError(f"found {len(weights)} weights for {count} vectors; give one per vector, in their order")
        for weight in weights:
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight != weight or abs(weight) == float("inf"):
                raise SelfposError(f"weights must be numbers, found {weight!r}")
    settings = Settings(method, count, weights, params)
    settings.params("")
    return settings
