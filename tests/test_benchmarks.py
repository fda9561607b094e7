"""The scripts of benchmarks/ are run by hand, months apart: what they import of the package must be there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))


def imported(script: Path) -> set[tuple[str, str]]:
    """(module, name) of all that a script imports from selfpos, within functions, too."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    return {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "selfpos"
        for alias in node.names
    }


@cache
def names_in(module: str) -> set[str]:
    """What a module or package binds at its top, without importing it, and the modules in it."""
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    bound = {inner.stem for inner in path.iterdir()} if path.is_dir() else set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    return bound


def test_what_benchmarks_import_is_there() -> None:
    wanted = {(script.name, *name) for script in SCRIPTS for name in imported(script)}
    assert len(wanted) > 100
    assert [entry for entry in sorted(wanted) if entry[2] not in names_in(entry[1])] == []
