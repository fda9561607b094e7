"""Packages that an extra brings: what needs one is refused before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec

from selfpos.errors import SelfposError

EXTRAS = {"imbalance": ("imblearn", "imbalanced-learn"), "ray": ("ray", "ray"), "search": ("cma", "cma")}
"""Extra → the module and the package that it brings."""


def need_extra(extra: str, what: str) -> None:
    """Raise SelfposError where `what` cannot work, since the package of `extra` is not installed."""
    module, package = EXTRAS[extra]
    if find_spec(module) is None:
        raise SelfposError(f"{what} needs the package {package}: pip install 'selfpos[{extra}]'")
