"""How much of each task a training sees."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

from selfpos.recipe import MixtureSettings

if TYPE_CHECKING:
    from datasets import Dataset


def records_per_epoch(mixture: MixtureSettings, sizes: Mapping[str, int]) -> dict[str, int]:
    """Records of each task in one epoch, when task i has N_i = `sizes[i]` of them and ratio r_i (1 when
    absent).

    - proportional: n_i = N_i
    - round-robin: n_i = min N
    - temperature: n_i = ΣN · N_i^α / Σ N_j^α (α 1: proportional; α 0: as many of each)
    - resampled, total: n_i = ΣN · r_i / Σ r_j
    - resampled, max: n_i = max N · r_i / max r_j: the task with the largest ratio has as many as the largest
      task

    The last two are the rivals of Li et al., arXiv 2410.15035. Its text can also be read as if the n_i of
    "Max" added up to max N. The training times in its figure 8b decide: over the five ratios 3:1 … 1:3, Max
    took 1.18 times as long as Total in English and 1.08 times in Chinese. The n_i above make that 1.182 and
    1.083; by the other reading Max would be the cheaper of the two.

    With more than N_i records some are repeated, with fewer another part is drawn in every epoch.
    """
    total, largest = sum(sizes.values()), max(sizes.values())
    if mixture.mixture == "proportional":
        return dict(sizes)
    if mixture.mixture == "round-robin":
        return dict.fromkeys(sizes, min(sizes.values()))
    if mixture.mixture == "temperature":
        shares = {task: size**mixture.alpha for task, size in sizes.items()}
        scale = total / sum(shares.values())
    else:
        shares = {task: mixture.ratio.get(task, 1.0) for task in sizes}
        scale = total / sum(shares.values()) if mixture.size == "total" else largest / max(shares.values())
    return {task: round(scale * share) for task, share in shares.items()}


def random_part(records: Dataset, share: float, seed: int) -> Dataset:
    """A share of `records`, 0 < share ≤ 1, drawn with `seed` without replacement, in the order of the data.

    It has one record at least. Each data set is drawn from separately, as in Zhang et al. 2026 (BOOM),
    arXiv 2602.05787, so that every part has the mixture of the whole.
    """
    count = max(1, round(share * len(records)))
    if count == len(records):
        return records
    return records.select(sorted(random.Random(f"part {seed}").sample(range(len(records)), count)))
