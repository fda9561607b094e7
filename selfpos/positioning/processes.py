"""Several processes, one search: each embeds its share of the texts, and all get all embeddings.

Every process runs the same search with the same seed. They exchange embeddings, so that every text is a
negative for every other, and the gradient of the coefficients; never a weight or its gradient.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from selfpos.processes import in_any, join


class Processes:
    """The processes of one launch, `count` of them, of which this is number `rank`; a single one by default.

    `device` is the device that the launcher gives to this process, None for a single one.
    """

    def __init__(self, rank: int = 0, count: int = 1, device: str | None = None) -> None:
        self.rank, self.count, self.device = rank, count, device
        self._interrupted = False

    @classmethod
    def joined(cls) -> Processes:
        """The processes that this one was started with. Waits for them."""
        state = join()
        return cls(state.process_index, state.num_processes, str(state.device)) if state else cls()

    def chunks(self, order: Sequence[int], size: int, *, even: bool = False) -> list[Sequence[int]]:
        """`order` cut into chunks of at most `size`, of which process r takes r, r + count, and so on.

        The chunks, and so the numbers, are the same however many processes there are. With `even` they are as
        small as it takes to give all processes like work.
        """
        if even and self.count > 1:
            rounds = max(1, -(-len(order) // (size * self.count)))
            size = max(1, -(-len(order) // (rounds * self.count)))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def gather(self, rows: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """The rows of all chunks in order, from this process's `rows` (at least one tensor, perhaps empty).

        `counts` are the numbers of rows of all chunks. Differentiable: each graph leads to its own rows
        alone.
        """
        if self.count == 1:
            return list(rows)
        shares = [counts[rank :: self.count] for rank in range(self.count)]
        longest = max(map(sum, shares))
        joined = torch.cat(list(rows))
        everything = _Gather.apply(torch.nn.functional.pad(joined, (0, 0, 0, longest - len(joined))), self)
        parts = [
            everything[rank * longest :][: sum(share)].split(list(share)) if share else []
            for rank, share in enumerate(shares)
        ]
        return [parts[number % self.count][number // self.count] for number in range(len(counts))]

    def sum(self, table: Tensor) -> Tensor:
        """The sum of all processes' tables."""
        if self.count == 1:
            return table
        from accelerate.utils import reduce

        self.stop_together()
        return reduce(table, "sum")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block in which Ctrl-C ends all processes at the same point, so that none waits for another."""
        if self.count == 1 or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(*_: Any) -> None:
            self._interrupted = True

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def stop_together(self) -> None:
        """Raise KeyboardInterrupt in all processes when one of them was interrupted."""
        if in_any(self._interrupted)[0]:
            raise KeyboardInterrupt


class _Gather(torch.autograd.Function):
    """The rows of all processes. Each computes the whole loss, so the gradient of its rows is complete."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, processes: Processes) -> Tensor:
        from accelerate.utils import gather

        processes.stop_together()
        ctx.start = processes.rank * len(rows)
        ctx.count = len(rows)
        return gather(rows.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.start : ctx.start + ctx.count], None
