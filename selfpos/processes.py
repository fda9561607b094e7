"""Several processes of one launch, as torchrun and accelerate start them: the first writes and speaks, the
others follow.

In a process on its own nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selfpos.console import is_first


def count() -> int:
    """How many processes work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str = "auto") -> Any:
    """Meet the other processes; returns accelerate's state, or None for a single process.

    Each process gets a GPU of its own unless `device` is cpu. Further calls change nothing.
    """
    if count() == 1:
        return None
    import torch
    from accelerate import PartialState

    return PartialState(cpu=device == "cpu" or not torch.cuda.is_available())


def wait() -> None:
    """Return when all processes have called this."""
    if count() > 1:
        import torch.distributed

        torch.distributed.barrier()


def of_first(value: Any) -> Any:
    """The `value` that the first process has, in all of them."""
    if count() == 1:
        return value
    import torch.distributed

    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first process runs the block before the others, who can use what it has written."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def in_any(*facts: bool) -> list[bool]:
    """Which of `facts` hold in at least one of the processes."""
    if count() == 1:
        return list(facts)
    import torch
    from accelerate import PartialState
    from accelerate.utils import reduce

    votes = torch.tensor(facts, dtype=torch.float32, device=PartialState().device)
    return [bool(total) for total in reduce(votes, "sum").tolist()]
