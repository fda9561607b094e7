"""The benchmark of positioning runs to its end, with the gradients of a graph through the merge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.nightly
def test_a_quick_benchmark_fills_every_table(tmp_path: Path) -> None:
    words = [
        sys.executable,
        ROOT / "benchmarks" / "positioning.py",
        "--quick",
        "--out",
        tmp_path,
        "--work",
        tmp_path / "work",
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "positioning.json").read_text())
    ratios = {row["what"]: row["found"] for row in results["ratios"]}
    assert ratios["gradient, N = 3: largest difference from the graph's, relative"] < 1e-3
    assert all(ratio > 0 for ratio in ratios.values())
    assert all(step["seconds"] > 0 for step in [*results["steps"].values(), *results["wide"].values()])
    tables = (tmp_path / "positioning.md").read_text()
    assert all(f"\n| {row} |" in tables for row in [*results["steps"], *ratios, *results["on_paper"]])
