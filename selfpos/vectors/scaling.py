"""How an adapter's settings scale its factors. Their types, numbers and patterns are checked."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError

LARGEST = 1e6  # of alpha: no training has more, and float32 products stay finite
PATTERN_SECONDS = 2.0  # for all patterns and modules of an adapter; the usual ones take a thousandth


class Scaling:
    """alpha / rank, or alpha / √rank for rank-stabilised LoRA, with PEFT's patterns of module names.

    Raises SelfposError where a setting is of a wrong type, or a pattern is no regular expression.
    """

    def __init__(self, config: Mapping[str, Any], adapter: Path) -> None:
        import regex

        self.adapter = adapter
        self.alpha = self._number("lora_alpha", config.get("lora_alpha", 8))
        self.stabilised = bool(config.get("use_rslora"))
        self.left = PATTERN_SECONDS
        patterns = config.get("alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise self._fault("alpha_pattern", patterns, "a mapping from patterns to numbers")
        self.patterns: list[tuple[Any, float]] = []
        for pattern, alpha in patterns.items():
            try:
                compiled = regex.compile(rf"(.*\.)?({pattern})$")
            except regex.error as error:
                raise self._fault("alpha_pattern", pattern, f"a regular expression ({error})") from None
            self.patterns.append((compiled, self._number("alpha_pattern", alpha)))

    def of(self, module: str, rank: int) -> float:
        """The factor of B·A at `module`. Raises SelfposError for rank 0, or a pattern that takes too long."""
        if rank < 1:
            raise self._fault("rank", rank, f"at least 1 at {module}")
        alpha = next(
            (alpha for pattern, alpha in self.patterns if self._matches(pattern, module)), self.alpha
        )
        return alpha / math.sqrt(rank) if self.stabilised else alpha / rank

    def _matches(self, pattern: Any, module: str) -> bool:
        start = time.monotonic()
        try:
            return pattern.match(module, timeout=max(self.left, 1e-3)) is not None
        except TimeoutError:
            raise self._fault("alpha_pattern", pattern.pattern, "a pattern that is matched at once") from None
        finally:
            self.left -= time.monotonic() - start

    def _number(self, name: str, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= LARGEST:
            raise self._fault(name, value, f"a number of at most {LARGEST:,.0f}")
        return float(value)

    def _fault(self, name: str, actual: Any, expected: str) -> SelfposError:
        return SelfposError(
            f"adapter {self.adapter} has {name} {str(actual)[:100]!r}; expected {expected}: mend its "
            "adapter_config.json, or save it again with PEFT"
        )
