"""The version of selfpos, read by the package, by provenance and by the build; and those of others."""

from __future__ import annotations

from functools import cache

__version__ = "0.2.0.dev0"


def versions_of(*packages: str) -> dict[str, str]:
    """Package → its installed version."""
    return {package: _version(package) for package in packages}


@cache
def _version(package: str) -> str:
    """Read from files, which takes milliseconds."""
    from importlib.metadata import version

    return version(package)
