"""Checkpoints beside the output, from which a stopped training continues, and Ctrl-C, which makes one."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import selfpos.processes as processes
from selfpos.console import is_first, screen
from selfpos.errors import SelfposError, stopped
from selfpos.storage.atomic import locked, publish, write_text


class Checkpoints:
    """The folder `<out>.checkpoints/`. The trainer's `checkpoint-N` counts once it is renamed `step-N`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        return max(self.folder.glob("step-*"), key=step_of, default=None)

    def written(self, step: int) -> Path:
        """The folder in which the trainer writes the checkpoint of `step`."""
        return self.folder / f"checkpoint-{step}"

    def keep(self, step: int) -> None:
        """Declare the trainer's `checkpoint-{step}` whole: flush it, rename it, remove older ones."""
        older = list(self.folder.glob("step-*"))
        publish(self.written(step), self.folder / f"step-{step}")
        self._remove(older)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        self._remove(self.folder.glob("step-*"))
        shutil.rmtree(self.folder)

    def _remove(self, checkpoints: Iterable[Path]) -> None:
        for checkpoint in checkpoints:  # a kill while its files go must not leave half of one that counts
            shutil.rmtree(checkpoint.rename(self.written(step_of(checkpoint))))


def step_of(checkpoint: Path) -> int:
    """The step of a whole checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


@contextmanager
def checkpoints_of(out: Path, identity: dict[str, Any]) -> Iterator[Checkpoints]:
    """The checkpoints of the training that writes `out`, whose settings and data `identity` describes.

    Nothing but this launch can train to `out` while the block runs. Raises SelfposError when the checkpoints
    belong to another training.
    """
    checkpoints = Checkpoints(out.with_name(out.name + ".checkpoints"))
    if not is_first():
        processes.wait()  # until the first has prepared the folder
        yield checkpoints
        return
    folder = checkpoints.folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for partial in folder.glob("checkpoint-*"):
            shutil.rmtree(partial)
        file = folder / "training.json"
        if checkpoints.latest():
            _refuse_other(folder, json.loads(file.read_text("utf-8")), json.loads(json.dumps(identity)))
        write_text(file, json.dumps(identity, indent=2))
        processes.wait()
        try:
            yield checkpoints
        except KeyboardInterrupt:
            if latest := checkpoints.latest():
                raise stopped(f"step {step_of(latest)} of the training") from None
            raise
        finally:
            if folder.is_dir() and not checkpoints.latest():
                shutil.rmtree(folder)


def _refuse_other(folder: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [
        f"{name} (there {there.get(name)!r}, now {now.get(name)!r})"
        for name in sorted(there.keys() | now.keys())
        if there.get(name) != now.get(name)
    ]
    if differing:
        raise SelfposError(
            f"{folder} holds checkpoints of another training, which differs in {', '.join(differing)}; "
            "remove the folder to start again, choose another output, or restore the settings to continue"
        )


class Interruption:
    """A block in which Ctrl-C is `noted`, so that a training stops after a step; it is raised at the end.

    A second Ctrl-C stops a single process at once. One of several waits for the others, and gets it twice
    anyway, from terminal and launcher.
    """

    noted = False
    _before: Any = None

    def __enter__(self) -> Interruption:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self.noted and kind is None:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        if self.noted and processes.count() == 1:
            raise KeyboardInterrupt
        if not self.noted:
            screen().print("stopping after this step, which will be kept; Ctrl-C again stops at once")
        self.noted = True
