"""Filters of mergekit's recipes for the tensors that a model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfpos.merging.settings import DEFAULT, fits

EVERY_LAYER = "layers.0-99999"
PREFIXES = ("model.", "bert.", "roberta.", "distilbert.", "mpnet.", "electra.", "transformer.")
"""What tensors of whole language models begin with, and those of encoders do not."""


def fit_rules(value: Any, keys: Sequence[str], notes: list[str]) -> Any:
    """Rules without those that fit none of the tensors `keys`, which mergekit passes over; `notes` says so.

    A filter with the prefix of a whole language model is tried without it, at the beginning of names.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [fit_rules(item, keys, notes) for item in value]
    if not isinstance(value, Mapping):
        return value
    rules: dict[str, Any] = {}
    remaining = list(keys)
    for rule, inner in value.items():
        if rule == DEFAULT:
            continue
        fitting = _without_prefix(rule) if not any(fits(rule, key) for key in keys) else rule
        fitting_keys = [key for key in remaining if fits(fitting, key)]
        if fitting_keys:
            rules[fitting] = fit_rules(inner, fitting_keys, notes)
            remaining = [key for key in remaining if key not in fitting_keys]
        elif rule != EVERY_LAYER:
            notes.append(f"filter {rule.strip('*')}: it fits no tensor here that is left, and has no effect")
    if DEFAULT in value and remaining:
        default = fit_rules(value[DEFAULT], remaining, notes)
        return rules | {DEFAULT: default} if rules else default
    return rules or None


def _without_prefix(rule: str) -> str:
    pattern = rule.strip("*")
    prefix = next((prefix for prefix in PREFIXES if pattern.startswith(prefix)), None)
    return f"{pattern.removeprefix(prefix)}*" if prefix else rule
