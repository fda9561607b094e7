"""Several processes, one search: each embeds its share of the texts, and all know all embeddings.

Started by `accelerate launch` or `torchrun`, every process runs the same search on the same records with the same seed. What is split is the
forward pass, and the backward pass through it; what crosses are the embeddings, so that every text is a negative for every other whichever
process has embedded it, and the gradient of the coefficients. No weight and no gradient of one does. Losses of embeddings are computed
by all, since they cost next to nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Processes:
    """The processes of one launch, `count` of them, this one being number `rank`; one alone unless a launcher says otherwise.

    `device` is what the launcher gives this process to compute on, None for one alone.
    """

    def __init__(self, rank: int = 0, count: int = 1, device: str | None = None) -> None:
        self.rank, self.count, self.device = rank, count, device
        self._interrupted = False

    @classmethod
    def joined(cls) -> Processes:
        """The processes that this one was started with. Waits for them."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        return cls(state.process_index, state.num_processes, str(state.device))

    def chunks(self, order: Sequence[int], size: int, *, even: bool = False) -> list[Sequence[int]]:
        """`order` cut into chunks of `size` at most, of which process r takes r, r + count, and so on.

        They are the same however many processes there are, and so are the numbers that come of them, unless they are to be `even`: as small
        as it takes for all processes to have like work.
        """
        if even and self.count > 1:
            rounds = max(1, -(-len(order) // (size * self.count)))
            size = max(1, -(-len(order) // (rounds * self.count)))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def gather(self, own: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """The rows of all chunks in their order, from this process's `own` (at least one, be it empty); `counts` are the numbers of rows of all.

        Differentiable: each process's graph leads to its own rows alone.
        """
        if self.count == 1:
            return list(own)
        shares = [counts[rank :: self.count] for rank in range(self.count)]
        longest = max(map(sum, shares))
        rows = torch.cat(list(own))
        everything = _Gather.apply(torch.nn.functional.pad(rows, (0, 0, 0, longest - len(rows))), self)
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

        self._stop_together(table.device)
        total: Tensor = reduce(table, "sum")
        return total

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            torch.distributed.barrier()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block in which Ctrl-C ends all processes at the same place, by KeyboardInterrupt: none waits for one that is gone."""
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

    def _stop_together(self, device: torch.device) -> None:
        from accelerate.utils import reduce

        if reduce(torch.tensor([float(self._interrupted)], device=device), "sum").item():
            raise KeyboardInterrupt


class _Gather(torch.autograd.Function):
    """Rows of all processes below each other. Every process computes the whole loss, so what it sends back to its own rows is all of it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, processes: Processes) -> Tensor:
        from accelerate.utils import gather

        processes._stop_together(rows.device)
        ctx.place = processes.rank * len(rows)
        ctx.count = len(rows)
        everything: Tensor = gather(rows.detach())
        return everything

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.place : ctx.place + ctx.count], None
