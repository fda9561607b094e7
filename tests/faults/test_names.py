"""Names that are not UTF-8, which no manifest can hold, and files that are none: refused before the work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfpos.errors import SelfposError, is_text
from selfpos.evaluation.load import load_model
from selfpos.publishing.plan import plan_push
from selfpos.storage.hashing import content_hash
from selfpos.storage.model_folder import open_model
from selfpos.training.models import check_trainable
from tests.helpers.command import ROOT

LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("name", [f"{LATIN}.txt", f"{LATIN}/x.json"])
def test_a_model_with_such_a_file_is_refused_by_every_verb(
    name: str, tiny_base: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text("{}")
    for opened in (open_model, check_trainable, load_model, content_hash):
        with pytest.raises(SelfposError, match=r"model has a file 'caf.*, whose name is not UTF-8"):
            opened(model)
    problems = plan_push(model, "alice/x", licence="mit").problems
    assert any("whose name is not UTF-8" in problem for problem in problems)


@pytest.mark.parametrize("name", ["README.md", "config.json", "2_Dense/pipe.txt"])
def test_a_model_with_a_pipe_is_refused_by_every_verb(name: str, tiny_base: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_base, tmp_path / "model"))
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    for opened in (open_model, check_trainable, load_model):
        with pytest.raises(SelfposError, match=f"{name} is a pipe or a device|has no config.json"):
            opened(model)


@pytest.mark.parametrize("words", [["--out", LATIN], [f"--out={LATIN}"], ["--out", "x"]])
def test_the_command_line_takes_none(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / (LATIN if words[-1] == "x" else "folder")
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "selfpos", "merge", "--vectors", "a", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "UTF-8" in done.stderr and done.stderr.count("\n") == 1


def test_names_in_utf_8_are_text() -> None:
    assert is_text("größe 北京 👩") and not is_text(LATIN)
