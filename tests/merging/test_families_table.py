"""The table of architectures, ways of saving and methods: shown as it was measured, and still true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "families.json"


def test_nothing_reads_wrong_and_the_docs_show_it() -> None:
    rows = json.loads(RESULT.read_text())
    assert len({row["architecture"] for row in rows}) >= 24
    assert {row["result"].partition(":")[0] for row in rows} == {"right", "does not exist"}
    measured = RESULT.with_suffix(".md").read_text().partition("| architecture")
    assert measured[1] + measured[2] in (ROOT / "docs" / "models.md").read_text()


@pytest.mark.nightly
def test_the_table_is_still_true() -> None:
    rows = json.loads(RESULT.read_text())
    names = list(dict.fromkeys(row["architecture"] for row in rows))
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "families.py", *names],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept = [" | ".join((row["architecture"], row["form"], row["method"])) for row in rows]
    results = [row["result"].partition(":")[0] for row in rows]
    found = [line.rsplit(" | ", 1) for line in done.stdout.splitlines()]
    assert [(case, result.partition(":")[0]) for case, result in found] == list(
        zip(kept, results, strict=True)
    )
