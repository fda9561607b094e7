"""What a training depends on outside of it: trackers, room on the disk and in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from selfpos.errors import OperationError, SelfposError
from selfpos.recipe import TrainingSettings

TENSORBOARD = "TENSORBOARD_LOGGING_DIR"


def check_trackers(names: Sequence[str]) -> None:
    """Raise SelfposError for the first tracker whose package is not installed."""
    for name in names:
        packages = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
        if not any(map(find_spec, packages)):
            raise SelfposError(
                f"report_to {name} needs the package {packages[0]}, which is not installed; "
                "install it or leave it out"
            )


@contextmanager
def tensorboard_beside(out: Path) -> Iterator[None]:
    """Write TensorBoard's files to `<out>.logs`, unless the environment names a folder."""
    if TENSORBOARD in os.environ:
        yield
        return
    os.environ[TENSORBOARD] = str(out.with_name(out.name + ".logs"))
    try:
        yield
    finally:
        del os.environ[TENSORBOARD]


@contextmanager
def outside_failures(settings: TrainingSettings) -> Iterator[None]:
    """Turn a full disk or a full GPU into one sentence."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise _out_of_memory("the GPU's memory", settings) from None
    except MemoryError:
        raise _out_of_memory("the memory", settings) from None
    except SelfposError:
        raise
    except Exception as error:
        # recognised by their text: a full disk is a RuntimeError of torch's file writer and an Exception of
        # safetensors, too little memory a RuntimeError of torch's allocator
        text = str(error)
        if "can't allocate memory" in text or "not enough memory" in text:
            raise _out_of_memory("the memory", settings) from None
        signs = ("No space left on device", "PytorchStreamWriter failed", "(os error 28)")
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        if not full and not any(sign in text for sign in signs):
            raise
        raise OperationError(
            "the disk is full; free some space and start again: "
            "the training continues from its last checkpoint"
        ) from None


def _out_of_memory(what: str, settings: TrainingSettings) -> OperationError:
    length = settings.max_length or "that of the model"
    ways = [f"lower batch_size ({settings.batch_size}) or max_length ({length})"]
    if settings.cached:
        ways.append(f"set cached below {settings.cached}")
    else:
        ways.append(f"give cached a number of texts below {settings.batch_size}")
    if not settings.gradient_checkpointing:
        ways.append("switch gradient_checkpointing on")
    if not settings.lora:
        ways.append("train with lora")
    return OperationError(f"{what} ran out; {', or '.join(ways)}")
