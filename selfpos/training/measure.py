"""What a training took, and on what."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any


def peak_memory() -> dict[str, int]:
    """Peak resident memory of this process since it began, and of the GPU since its count was last reset; in bytes."""
    import resource
    import sys

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return peak


def environment(device: Any) -> dict[str, Any]:
    """Device, threads and versions: with the inputs and the seed, all that decides the bytes of the result."""
    import torch

    packages = ("selfpos", "torch", "transformers", "sentence-transformers", "datasets", "accelerate", "peft", "tokenizers")
    versions = {"python": platform.python_version()} | {package: _version(package) for package in packages}
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {"device": f"{device.type} ({name})", "threads": torch.get_num_threads(), "versions": versions}


def _version(package: str) -> str:
    if package == "selfpos":
        from selfpos import __version__

        return __version__
    return version(package)
