"""Whether this machine has a device."""

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
