"""Which devices this machine has."""

from __future__ import annotations

from selfpos.errors import SelfposError, unknown


def check_device(name: str) -> None:
    """Raise SelfposError unless this machine has the device `name`: auto, cpu, cuda, cuda:1, mps or xpu."""
    if name in ("auto", "cpu"):
        return
    import torch

    kind, _, number = name.partition(":")
    counts = {"cuda": torch.cuda.device_count, "mps": torch.mps.device_count, "xpu": torch.xpu.device_count}
    if kind not in counts:
        raise unknown("device", name, ["auto", "cpu", *counts])
    count = counts[kind]()
    if count <= (int(number) if number.isdigit() else 0):
        raise SelfposError(
            f"there is no device {name} on this machine "
            f"(torch {torch.__version__} sees {count} of kind {kind}); use cpu"
        )


def default_device() -> str:
    """The GPU if there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
