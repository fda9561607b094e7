"""What a training took, and on what."""

from __future__ import annotations

import json
import platform
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Spent:
    """What a training takes: seconds, and peak memory in bytes. Counts from the moment it is made, and on from where a stopped training was."""

    FILE = "spent.json"

    def __init__(self) -> None:
        import torch

        self._begun = time.perf_counter()
        self._before: dict[str, float] = {}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        # Linux lets a process start its own peak anew; elsewhere the peak is that of the process since it began.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def now(self) -> dict[str, Any]:
        """`seconds`, `peak_memory_bytes` resident, and `peak_gpu_memory_bytes` where there is a GPU."""
        found = {"seconds": time.perf_counter() - self._begun, **peak_memory()}
        merged = {name: value + self._before.get(name, 0.0) if name == "seconds" else max(value, self._before.get(name, 0))
                  for name, value in found.items()}  # fmt: skip
        return merged | {"seconds": round(merged["seconds"], 3)}

    def write(self, checkpoint: Path) -> None:
        """Note it in the folder of a checkpoint."""
        (checkpoint / self.FILE).write_text(json.dumps(self.now()), encoding="utf-8")

    def add(self, checkpoint: Path) -> None:
        """Go on from what a checkpoint noted."""
        file = checkpoint / self.FILE
        self._before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def peak_memory() -> dict[str, int]:
    """Peak resident memory of this process, and of the GPU, since each was last reset (see `Spent`); in bytes."""
    import resource
    import sys

    import torch

    status = Path("/proc/self/status")
    if status.is_file():
        line = next(
            line
            for line in status.read_text(encoding="ascii", errors="replace").splitlines()
            if line.startswith("VmHWM:")
        )
        resident = int(line.split()[1]) * 1024
    else:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )
    peak = {"peak_memory_bytes": resident}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return peak


def environment(device: Any) -> dict[str, Any]:
    """Device, threads and versions: with the inputs and the seed, all that decides the bytes of the result."""
    import torch

    packages = (
        "selfpos",
        "torch",
        "transformers",
        "sentence-transformers",
        "datasets",
        "accelerate",
        "peft",
        "tokenizers",
    )
    versions = {"python": platform.python_version()} | {package: _version(package) for package in packages}
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {"device": f"{device.type} ({name})", "threads": torch.get_num_threads(), "versions": versions}


def _version(package: str) -> str:
    if package == "selfpos":
        from selfpos.version import __version__

        return __version__
    return version(package)
