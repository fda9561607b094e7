"""A merge that is killed leaves no output, and the next start goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selfpos.errors import SelfposError
from selfpos.merging import merge, plan
from selfpos.merging.output import weights as write
from selfpos.merging.output.provenance import fingerprint
from tests.helpers.command import ROOT
from tests.helpers.folders import make_folder, moved, random_state

SHAPES: dict[str, tuple[int, ...]] = {f"layers.{index}.w.weight": (40, 30) for index in range(12)}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, list[Path]]:
    generator = np.random.default_rng(0)
    base = random_state(generator, shapes=SHAPES)
    sources = [
        make_folder(tmp_path / f"v{index}", moved(base, random_state(generator, 0.1, SHAPES)))
        for index in range(2)
    ]
    return make_folder(tmp_path / "base", base), sources


# Starts a merge that stops for good in the middle of writing, after a checkpoint at every piece.
PROGRAM = """
import sys
from pathlib import Path
from selfpos.merging import merge
from selfpos.merging.output import weights as write
from tests.helpers.slow_ties import pause
write.CHECKPOINT_SECONDS = float(sys.argv.pop(1))
pause()
merge(Path(sys.argv[1]), [Path(name) for name in sys.argv[3:]], "ties", Path(sys.argv[2]), threads=1)
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_killed_merges_go_on(
    tmp_path: Path, folders: tuple[Path, list[Path]], stop: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    base, sources = folders
    whole = merge(base, sources, "ties", tmp_path / "whole", threads=1)
    seconds = "0" if stop == signal.SIGKILL else "1000"  # Ctrl-C notes what is finished whenever it comes
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, seconds, str(base), str(out), *map(str, sources)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == b"now\n"
    (left,) = tmp_path.glob(".out.tmp-*")
    with pytest.raises(SelfposError, match="another process is writing"):
        merge(base, sources, "ties", out, threads=1)
    os.kill(process.pid, stop)
    process.wait()
    process.stdout.close()
    assert not out.exists() and left.is_dir()
    with caplog.at_level("INFO", logger="selfpos"):
        result = merge(base, sources, "ties", out, threads=1)
    assert "continuing an interrupted merge: 7 of 12 pieces" in caplog.text
    assert (result.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()
    assert {file.name for file in result.out.iterdir()} == {file.name for file in whole.out.iterdir()}
    assert not list(tmp_path.glob(".out.tmp-*"))


def test_leftovers_of_another_merge_are_not_used(tmp_path: Path, folders: tuple[Path, list[Path]]) -> None:
    base, sources = folders
    prints = {
        fingerprint(plan(base, sources, method, tmp_path / "out", **options))
        for method, options in [
            ("average", {}),
            ("linear", {}),
            ("linear", {"weights": [1, 2]}),
            ("linear", {"dtype": "float16"}),
        ]  # type: ignore[dict-item]
    }
    prints.add(fingerprint(plan(base, sources[::-1], "average", tmp_path / "out")))
    assert len(prints) == 5
    stale = tmp_path / ".out.tmp-0123456789abcdef"
    stale.mkdir()
    (stale / write.JOURNAL).write_text('{"pieces": 5}')
    merge(base, sources, "average", tmp_path / "out")
    assert not stale.exists()


def test_an_error_leaves_nothing(
    tmp_path: Path, folders: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, sources = folders

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("selfpos.storage.tensor_file.TensorFileWriter.write", full)
    with pytest.raises(SelfposError, match="No space left on device") as caught:
        merge(base, sources, "average", tmp_path / "out")
    assert caught.value.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "v0", "v1"]
