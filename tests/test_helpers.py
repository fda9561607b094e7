"""What tests share is in tests/helpers: no file of tests/ imports from a test module or a conftest.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

from tests.helpers.command import ROOT


def strays(file: Path) -> Iterator[str]:
    """The place and name of each import of something in tests/ that is no helper, within functions, too."""
    package = ".".join(file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                module = resolve_name("." * node.level + (node.module or ""), package)
                names = [f"{module}.{name}" for name in names]
            for name in names:
                if name.split(".")[0] == "tests" and name.split(".")[1:2] != ["helpers"]:
                    yield f"{file.relative_to(ROOT)}:{node.lineno} imports {name}"


def test_what_tests_share_is_in_helpers() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    assert len(files) > 100
    found = [stray for file in files for stray in strays(file)]
    assert not found, "\n".join(found)
