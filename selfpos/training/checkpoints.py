"""Checkpoints beside the output, from which a stopped training goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import selfpos.processes as processes
from selfpos.console import is_first
from selfpos.errors import SelfposError, stopped
from selfpos.storage.atomic import locked, publish, write_text


class Checkpoints:
    """The folder `<out>.checkpoints/`. What the trainer writes there as `checkpoint-N` counts only once it is whole and renamed `step-N`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        return max(self.folder.glob("step-*"), key=_step, default=None)

    def written(self, step: int) -> Path:
        """The folder in which the trainer writes the checkpoint of `step`."""
        return self.folder / f"checkpoint-{step}"

    def keep(self, step: int) -> None:
        """Declare the trainer's `checkpoint-{step}` whole: flush it, give it its name, remove older ones."""
        older = list(self.folder.glob("step-*"))
        publish(self.written(step), self.folder / f"step-{step}")
        for checkpoint in older:
            shutil.rmtree(checkpoint)

    def remove(self) -> None:
        """Remove the folder with everything in it: the training is done."""
        shutil.rmtree(self.folder)


@contextmanager
def checkpoints_of(out: Path, identity: dict[str, Any]) -> Iterator[Checkpoints]:
    """The checkpoints of the training that writes `out` and is described by `identity`.

    While the block runs no other process can train to the same output, but for those that train together. A folder without a checkpoint is not left behind. Raises
    SelfposError when the checkpoints found there belong to another training, naming what differs.
    """
    folder = out.with_name(out.name + ".checkpoints")
    if not is_first():
        processes.wait()  # until it is in order
        yield Checkpoints(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        checkpoints = Checkpoints(folder)
        for partial in folder.glob("checkpoint-*"):
            shutil.rmtree(partial)
        file = folder / "training.json"
        if checkpoints.latest() is not None:
            _refuse_other(
                folder, json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(identity))
            )
        write_text(file, json.dumps(identity, indent=2))
        processes.wait()
        try:
            yield checkpoints
        except KeyboardInterrupt:
            if (latest := checkpoints.latest()) is not None:
                raise stopped(f"step {_step(latest)} of the training") from None
            raise
        finally:
            if folder.is_dir() and checkpoints.latest() is None:
                checkpoints.remove()


def _refuse_other(folder: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    differing = [
        f"{name} (there {found.get(name)!r}, now {asked.get(name)!r})"
        for name in sorted(found.keys() | asked.keys())
        if found.get(name) != asked.get(name)
    ]
    if differing:
        raise SelfposError(
            f"{folder} holds checkpoints of another training, which differs in {', '.join(differing)}; "
            "remove the folder to start anew, choose another output, or set things as they were to go on"
        )


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))
