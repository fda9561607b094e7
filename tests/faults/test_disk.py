"""A disk that refuses, in the words of every library that writes; and what killed writers leave."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from selfpos.console import log, log_to
from selfpos.errors import OperationError
from selfpos.recipe import TrainingSettings
from selfpos.storage.atomic import disk_refusal, fresh_folder, publish, write_text
from selfpos.training.outside import outside_failures

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def small_files() -> object:
    """No file may have more than 2,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def by_safetensors(folder: Path) -> None:
    save_file({"w": torch.zeros(1000)}, folder / "x.safetensors")


def by_torch(folder: Path) -> None:
    torch.save(torch.zeros(1000), folder / "x.pt")


def by_python(folder: Path) -> None:
    (folder / "x").write_bytes(b"x" * 4000)


@pytest.mark.parametrize("write", [by_safetensors, by_torch, by_python])
def test_no_writer_ends_in_a_traceback(write: object, small_files: object, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OperationError, match=r"failed: .*nothing is left"), fresh_folder(out) as folder:
        write(folder)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OperationError, match="start again"), outside_failures(TrainingSettings()):
        write(tmp_path)  # type: ignore[operator]


def test_other_errors_are_no_refusals() -> None:
    assert disk_refusal(ValueError("x")) == "" and disk_refusal(RuntimeError("os error")) == ""
    written = disk_refusal(RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"))
    assert written == "a file could not be written, most often for a full disk"
    assert disk_refusal(OSError(errno.ENOSPC, "full", "read", None, "written")) == "full (written)"


def test_a_log_that_cannot_be_written_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: logging.StreamHandler, record: logging.LogRecord) -> None:
        raise FULL

    with log_to(tmp_path / "log"):
        monkeypatch.setattr(logging.StreamHandler, "format", full)
        with pytest.raises(OSError, match="No space"):
            log.info("a line")
        monkeypatch.undo()
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_that_another_takes_for_abandoned_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Path] = []
    lock = fcntl.flock

    def flock(handle: int, how: int) -> None:
        if not taken:
            taken.extend(tmp_path.glob(".name.json.*.tmp"))
            raise BlockingIOError(errno.EAGAIN, "held by another")
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    write_text(tmp_path / "name.json", "{}")
    assert (tmp_path / "name.json").read_text() == "{}" and taken[0].exists()


@pytest.mark.parametrize(
    ("number", "written"), [(errno.ENOLCK, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_file_system_without_locks_is_written_to(
    number: int, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with nullcontext() if written else pytest.raises(OSError, match="Input/output"):
        write_text(tmp_path / "name.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == (["name.json"] if written else [])


def test_what_a_killed_writer_left_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def killed(self: Path, target: Path) -> None:
        os.link(self, folder / ".kept")
        self.rename(folder / ".name.json.abcd1234.tmp")
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "replace", killed)
        write_text(folder / "name.json", "{}")
    write_text(folder / "name.json", "{}")
    publish(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".kept", "name.json"]
