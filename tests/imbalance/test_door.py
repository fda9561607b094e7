"""The companion has one door: its command. Nothing else of the package imports it."""

from __future__ import annotations

import ast
from pathlib import Path

import selfpos
from selfpos import cli

PACKAGE = Path(selfpos.__file__).parent


def imported_modules(file: Path) -> set[str]:
    """The modules that a source file imports, at any depth; of `from a import b` both a and a.b."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import, which this test does not follow"
            modules |= {str(node.module)} | {f"{node.module}.{name.name}" for name in node.names}
    return modules


def test_nothing_else_imports_the_companion() -> None:
    room = PACKAGE / "imbalance"
    files = list(PACKAGE.rglob("*.py"))
    inside = [file for file in files if room in file.parents]
    assert any("selfpos.imbalance.study.grid" in imported_modules(file) for file in inside)
    for file in set(files) - set(inside):
        users = [name for name in imported_modules(file) if name.startswith("selfpos.imbalance")]
        assert not users, f"{file} imports {users}"


def test_the_command_line_loads_it_by_name() -> None:
    assert cli.VERBS["imbalance"][0] == "imbalance.command"
    command = cli.selfpos.get_command(None, "imbalance")  # type: ignore[arg-type]
    assert set(command.commands) == {"run", "report", "ordering", "methods", "compare"}  # type: ignore
