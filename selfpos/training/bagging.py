"""Random parts of the data, one for each of several models that are merged afterwards."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


def random_part(records: Dataset, share: float, seed: int) -> Dataset:
    """A share of `records`, 0 < share ≤ 1, drawn without replacement with `seed`, in the order of the data; one record at least.

    Drawn from each data set by itself, as in Zhang et al. 2026 (BOOM), arXiv 2602.05787, so that every part has the whole's mixture.
    """
    count = max(1, round(share * len(records)))
    if count == len(records):
        return records
    return records.select(sorted(random.Random(f"part {seed}").sample(range(len(records)), count)))
