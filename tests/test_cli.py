"""The command line as a process: help, bad input, exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from selfpos.cli import VERBS


def selfpos(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from selfpos.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_imports_nothing_heavy(verb: str) -> None:
    """Help answers in a fraction of a second because none of the heavy libraries is imported for it."""
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'mteb', 'datasets', 'pydantic', 'numpy', 'matplotlib', 'rich'}"
    code = (
        "import sys; sys.argv = ['selfpos', *sys.argv[1:]]\nfrom selfpos.cli import selfpos\n"
        f"selfpos(standalone_mode=False)\nprint('LOADED', sorted({heavy} & set(sys.modules)))"
    )
    words = [verb, "--help"] if verb else ["--help"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert "LOADED []" in done.stdout


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a refused command; fails when there is more, such as a traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


def test_unknown_verb_names_the_nearest() -> None:
    assert "did you mean 'merge'?" in said(selfpos("marge"))
