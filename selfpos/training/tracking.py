"""Trackers that follow a training: Weights & Biases, TensorBoard and others, as transformers' trainer knows them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from selfpos.errors import SelfposError

TENSORBOARD = "TENSORBOARD_LOGGING_DIR"


def check_trackers(asked: Sequence[str]) -> None:
    """Raise SelfposError naming the first tracker `asked` for whose package is not installed."""
    for name in asked:
        packages = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(map(find_spec, packages)):
            raise SelfposError(
                f"report_to {name} needs the package {packages[0]}, which is not installed; install it or leave it out"
            )


@contextmanager
def logs_beside(out: Path) -> Iterator[None]:
    """Have TensorBoard's files written to `<out>.logs`, unless the user's environment names a place: the trainer's own folder is removed at the end."""
    if TENSORBOARD in os.environ:
        yield
        return
    os.environ[TENSORBOARD] = str(out.with_name(out.name + ".logs"))
    try:
        yield
    finally:
        del os.environ[TENSORBOARD]
