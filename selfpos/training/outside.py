"""What a training depends on outside of it and what it took: trackers, disk, memory, time, the machine."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selfpos.errors import OperationError, SelfposError
from selfpos.recipe import TrainingSettings
from selfpos.storage.atomic import disk_refusal
from selfpos.version import __version__, versions_of

TENSORBOARD = "TENSORBOARD_LOGGING_DIR"
PACKAGES = ("torch", "transformers", "sentence-transformers", "datasets", "accelerate", "peft", "tokenizers")
"""Whose versions go into the manifest: with the inputs and the seed they decide the result's bytes."""


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
    except SelfposError:
        raise
    except Exception as error:
        # too little memory is a RuntimeError of torch's allocator
        text = str(error)
        allocator = "can't allocate memory" in text or "not enough memory" in text
        if allocator or isinstance(error, MemoryError):
            raise _out_of_memory("the memory", settings) from None
        if not (reason := disk_refusal(error)):
            raise
        full = reason.startswith(os.strerror(errno.ENOSPC))
        why = (
            "the disk is full; free some space" if full else f"the disk refuses to write: {reason}; mend that"
        )
        raise OperationError(
            f"{why} and start again: the training continues from its last checkpoint"
        ) from None


def _out_of_memory(memory: str, settings: TrainingSettings) -> OperationError:
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
    return OperationError(f"{memory} ran out; {', or '.join(ways)}")


class Spent:
    """Seconds and peak memory in bytes since it was made, added to those of a stopped training."""

    FILE = "spent.json"

    def __init__(self) -> None:
        import torch

        self._start = time.perf_counter()
        self._before: dict[str, float] = {}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):  # Linux can reset a process's peak; elsewhere it counts from its start
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def now(self) -> dict[str, Any]:
        """`seconds`, `peak_memory_bytes` resident, and `peak_gpu_memory_bytes` where there is a GPU."""
        import torch

        seconds = time.perf_counter() - self._start + self._before.get("seconds", 0.0)
        peaks = {"peak_memory_bytes": _peak_memory()}
        status = Path("/proc/self/status")
        if status.is_file():  # unlike ru_maxrss, VmHWM can be reset
            for line in status.read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("VmHWM:"):
                    peaks["peak_memory_bytes"] = int(line.split()[1]) * 1024
        if torch.cuda.is_available():
            peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        highest = {name: max(value, self._before.get(name, 0)) for name, value in peaks.items()}
        return {"seconds": round(seconds, 3), **highest}

    def write(self, checkpoint: Path) -> None:
        """Note it in the folder of a checkpoint."""
        (checkpoint / self.FILE).write_text(json.dumps(self.now()), encoding="utf-8")

    def add(self, checkpoint: Path) -> None:
        """Continue from what a checkpoint noted."""
        self._before = json.loads((checkpoint / self.FILE).read_text(encoding="utf-8"))


def environment(device: Any) -> dict[str, Any]:
    """Device, threads and versions, for the manifest."""
    import torch

    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    own = {"python": platform.python_version(), "selfpos": __version__}
    return {
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "versions": own | versions_of(*PACKAGES),
    }


def _peak_memory() -> int:
    """Bytes resident at most since this process started; 0 on Windows, which does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
