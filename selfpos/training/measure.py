"""What a training took, and on which machine."""

from __future__ import annotations

import json
import platform
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Spent:
    """Seconds and peak memory in bytes since it was made, added to those of a stopped training."""

    FILE = "spent.json"

    def __init__(self) -> None:
        import torch

        self._start = time.perf_counter()
        self._before: dict[str, float] = {}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        # Linux can reset a process's peak; elsewhere the peak is that of the process since its start
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def now(self) -> dict[str, Any]:
        """`seconds`, `peak_memory_bytes` resident, and `peak_gpu_memory_bytes` where there is a GPU."""
        seconds = time.perf_counter() - self._start + self._before.get("seconds", 0.0)
        peaks = {name: max(value, self._before.get(name, 0)) for name, value in _peak_memory().items()}
        return {"seconds": round(seconds, 3), **peaks}

    def write(self, checkpoint: Path) -> None:
        """Note it in the folder of a checkpoint."""
        (checkpoint / self.FILE).write_text(json.dumps(self.now()), encoding="utf-8")

    def add(self, checkpoint: Path) -> None:
        """Continue from what a checkpoint noted."""
        file = checkpoint / self.FILE
        self._before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _peak_memory() -> dict[str, int]:
    """Peak resident memory of this process, and of the GPU, since each was last reset; in bytes."""
    import resource
    import sys

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    status = Path("/proc/self/status")
    if status.is_file():  # unlike ru_maxrss, VmHWM can be reset
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                resident = int(line.split()[1]) * 1024
    peak = {"peak_memory_bytes": resident}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return peak


def environment(device: Any) -> dict[str, Any]:
    """Device, threads and versions: with the inputs and the seed, all that decides the result's bytes."""
    import torch

    from selfpos.version import __version__

    packages = (
        "torch",
        "transformers",
        "sentence-transformers",
        "datasets",
        "accelerate",
        "peft",
        "tokenizers",
    )
    versions = {"python": platform.python_version(), "selfpos": __version__}
    versions |= {package: version(package) for package in packages}
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {"device": f"{device.type} ({name})", "threads": torch.get_num_threads(), "versions": versions}
