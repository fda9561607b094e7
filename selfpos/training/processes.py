"""One training in several processes, as torchrun and accelerate start them: the first writes and speaks, the others follow.

sentence-transformers' trainer deals the batches out and averages the gradients. Everything here does nothing in a process on its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selfpos.console import is_first


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str) -> None:
    """Meet the other processes, each on a GPU of its own unless `device` is cpu; again, it is nothing."""
    if count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=device == "cpu" or not torch.cuda.is_available())


def wait() -> None:
    """Return when all processes have come here."""
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
    """The first process does the block before the others, who find what it has written."""
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

    return [
        bool(found)
        for found in reduce(
            torch.tensor(facts, dtype=torch.float32, device=PartialState().device), "sum"
        ).tolist()
    ]
