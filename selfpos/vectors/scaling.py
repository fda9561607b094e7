"""How an adapter's settings scale its factors. Their types, numbers and patterns are checked."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.errors import SelfposError

LARGEST = 1e6  # of alpha: no training has more, and float32 products stay finite
MOST_PATTERNS, MOST_LETTERS = 5_000, 1_000  # a pattern takes half a millisecond to read
MOST_REPEATS = 10_000  # of all counts of a pattern multiplied, for groups may lie within each other
REPEATS = re.compile(r"\{(\d*),?(\d*)\}")
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
        if len(patterns) > MOST_PATTERNS:
            raise self._fault("alpha_pattern", f"{len(patterns):,} patterns", f"at most {MOST_PATTERNS:,}")
        for pattern, alpha in patterns.items():
            self._check_size(pattern)
            whole = rf"(.*\.)?({pattern})$"
            try:
                re.compile(whole)  # PEFT's reader, which knows less than the one with a time limit
                compiled = regex.compile(whole)
            except (re.error, regex.error, OverflowError, RecursionError) as error:
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

    def _check_size(self, pattern: str) -> None:
        """Raise SelfposError for a pattern that takes seconds and gigabytes to be read."""
        if len(pattern) > MOST_LETTERS:
            raise self._fault("alpha_pattern", pattern, f"at most {MOST_LETTERS:,} letters")
        counts = (int(number) for pair in REPEATS.findall(pattern) for number in pair if number)
        if math.prod(max(1, count) for count in counts) > MOST_REPEATS:
            raise self._fault("alpha_pattern", pattern, f"at most {MOST_REPEATS:,} counted repeats")

    def _matches(self, pattern: Any, module: str) -> bool:
        start = time.process_time()  # as `regex` counts, so that a busy machine refuses nothing
        try:
            return pattern.match(module, timeout=max(self.left, 1e-3)) is not None
        except TimeoutError:
            raise self._fault("alpha_pattern", pattern.pattern, "a pattern that is matched at once") from None
        finally:
            self.left -= time.process_time() - start

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
