"""What makes forward passes fast: texts of like length together, in batches of a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

# Tokens in one batch, padding included. On a CPU a layer's widest output must be small: of 2048 tokens
# all-MiniLM-L6-v2 makes 12 MB, which the C library gives back to the system and fetches again, page by page,
# in each layer; that takes a tenth of the time. A GPU needs more to be busy.
BUDGET = {"cpu": 1024}
BUDGET_ELSEWHERE = 32768
# Short texts may be many in a batch: tokens cost, not texts.
MOST_TEXTS = 256
TOKENISED_AT_ONCE = 256  # texts of like length, padded to the longest


def budget_of(device: torch.device) -> int:
    """Tokens of one batch on `device`."""
    return BUDGET.get(device.type, BUDGET_ELSEWHERE)


def batches(lengths: Sequence[int], budget: int, most: int = MOST_TEXTS) -> Iterator[list[int]]:
    """Indices of `lengths`, longest first, in batches of at most `most` texts and `budget` padded tokens."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        count = min(most, max(1, budget // max(1, lengths[order[start]])))
        yield order[start : start + count]
        start += count
