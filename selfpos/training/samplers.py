"""How much of each task a training sees, and the batch samplers beside sentence-transformers' own."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler, SetEpochMixin
from torch.utils.data import BatchSampler, ConcatDataset

from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.recipe import MixtureSettings
    from selfpos.tasks import TaskType

POOL = 50  # batches that are sorted by length together: more of them pad less and mix less
CHARACTERS = 5  # of a token, about: a text that is truncated counts as no longer than its tokens
PASSES = 3  # over the data to reach the promised batches, where records that share texts leave some short


def records_per_epoch(mixture: MixtureSettings, sizes: Mapping[str, int]) -> dict[str, int]:
    """Records of each task in one epoch, when task i has N_i = `sizes[i]` and ratio r_i (1 when absent).

    - proportional: n_i = N_i
    - round-robin: n_i = min N
    - temperature: n_i = ΣN · N_i^α / Σ N_j^α (α 1: proportional; α 0: as many of each)
    - resampled, total: n_i = ΣN · r_i / Σ r_j
    - resampled, max: n_i = max N · r_i / max r_j

    The last two are the rivals of Li et al., arXiv 2410.15035. Its text can also be read as if the n_i of
    "Max" added up to max N. The training times in its figure 8b decide: over the five ratios Max took 1.18
    (English) and 1.08 (Chinese) times as long as Total; the n_i above make that 1.182 and 1.083.
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
    """A share of `records`, one at least, drawn with `seed` without replacement, in the order of the data.

    Drawn for each data set alone, as in BOOM (Zhang et al. 2026, arXiv 2602.05787): every part has the
    mixture of the whole.
    """
    count = max(1, round(share * len(records)))
    if count == len(records):
        return records
    return records.select(sorted(random.Random(f"part {seed}").sample(range(len(records)), count)))


class LengthBatchSampler(SetEpochMixin, BatchSampler):
    """Random batches of `size` records of like length, in random order, so that little of a batch is padding.

    The shuffled records are cut into pools of 50 batches and sorted within a pool by the characters of their
    texts, each text counted up to the length of `max_tokens`. The type's rules hold: with `no_duplicates` no
    two records of a batch share a text; with `group_by_label` a batch has two or more records of each of two
    or more labels. A record that would break a rule waits for the next batch; an incomplete batch is dropped.
    Raises ValueError where the data gives no full batch, as the library's samplers do.
    """

    def __init__(
        self,
        dataset: Dataset,
        task_type: TaskType,
        size: int,
        generator: torch.Generator,
        seed: int,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(range(len(dataset)), size, True)
        self.rule, self.generator, self.seed = task_type.sampler, generator, seed
        columns = task_type.texts_of(column for column in dataset.column_names if column != "dataset_name")
        self.lengths, self.texts = _measure(dataset, columns, CHARACTERS * max_tokens if max_tokens else None)
        self.labels: Sequence[Any] | None = None
        usable = len(dataset)
        if self.rule == "group_by_label":
            if size < 4 or size % 2:
                raise ValueError(f"batch_size must be an even number >= 4, but got {size}.")
            self.labels = dataset.with_format(None)["label"][:]
            counts = np.unique(self.labels, return_counts=True)[1] // 2 * 2
            if (counts > 0).sum() < 2:
                raise ValueError("there are fewer than 2 labels with 2 texts each")
            # a batch holds at least two records of another label than its commonest
            usable = int(min(counts.sum(), (counts.sum() - counts.max()) // 2 * size))
        self._count = usable // size

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        yielded = 0
        for _ in range(PASSES):
            for batch in self._pass():
                if yielded == self._count:
                    return
                yield batch
                yielded += 1

    def _pass(self) -> Iterator[list[int]]:
        """Batches of one shuffle of the data."""
        units = self._units()
        waiting: list[list[int]] = []
        pool = POOL * self.batch_size // (2 if self.labels is not None else 1)
        for start in range(0, len(units), pool):
            waiting += units[start : start + pool]
            waiting.sort(key=lambda unit: max(self.lengths[row] for row in unit))
            batches = []
            while batch := self._take(waiting):
                batches.append(batch)
            yield from self._shuffled(batches)

    def _shuffled(self, items: list[list[int]]) -> list[list[int]]:
        return [items[index] for index in torch.randperm(len(items), generator=self.generator).tolist()]

    def _units(self) -> list[list[int]]:
        """What shares a batch, shuffled: single records, or pairs of one label and of like length."""
        order = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        if self.labels is None:
            return [[row] for row in order]
        groups: dict[Any, list[int]] = defaultdict(list)
        for row in order:
            groups[self.labels[row]].append(row)
        units = []
        for group in groups.values():
            rows = sorted(group[: len(group) // 2 * 2], key=self.lengths.__getitem__)
            units += [rows[start : start + 2] for start in range(0, len(rows), 2)]
        return self._shuffled(units)

    def _take(self, waiting: list[list[int]]) -> list[int]:
        """Remove the first batch that the rules allow from `waiting`; empty when they allow none."""
        batch: list[int] = []
        chosen: set[int] = set()
        used_texts: set[int] = set()
        for index, unit in enumerate(waiting):
            if self._allowed(batch, unit, used_texts):
                batch += unit
                chosen.add(index)
                used_texts.update(text for row in unit for text in self.texts[row])
                if len(batch) == self.batch_size:
                    waiting[:] = [unit for index, unit in enumerate(waiting) if index not in chosen]
                    return batch
        return []

    def _allowed(self, batch: list[int], unit: list[int], used_texts: set[int]) -> bool:
        if self.rule == "no_duplicates":
            return used_texts.isdisjoint(self.texts[unit[0]])
        if self.labels is not None and len(batch) + len(unit) == self.batch_size:
            return len({self.labels[row] for row in (*batch, *unit)}) > 1
        return True


def _measure(
    dataset: Dataset, columns: Sequence[str], most: int | None
) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """The characters of each record's texts, each counted up to `most`, and their hashes."""
    lengths, hashes = [], []
    for rows in dataset.with_format(None).select_columns(list(columns)).iter(1000):
        for texts in zip(*(rows[column] for column in columns), strict=True):
            lengths.append(sum(min(len(text), most or len(text)) for text in texts))
            hashes.append(tuple(xxhash.xxh3_64_intdigest(text.encode()) for text in texts))
    return np.array(lengths), hashes


class MixtureBatchSampler(MultiDatasetDefaultBatchSampler):
    """In every epoch `batches[i]` batches of data set i, in random order by `seed` and the epoch.

    A data set with more batches than that gives others in the next epoch; one with fewer is passed again.
    """

    def __init__(
        self, dataset: ConcatDataset, batch_samplers: list[Any], batches: Sequence[int], *, seed: int
    ) -> None:
        super().__init__(dataset, batch_samplers, seed=seed)
        self.batches = batches
        # one each: a new pass through a data set restarts its generator, and must not restart the others'
        self._generators = [torch.Generator() for _ in batch_samplers]
        for sampler, generator in zip(batch_samplers, self._generators, strict=True):
            sampler.generator = generator
            if hasattr(sampler.sampler, "generator"):  # of those that shuffle by another sampler
                sampler.sampler.generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        turns = torch.tensor([index for index, count in enumerate(self.batches) for _ in range(count)])
        offsets = [0, *self.dataset.cumulative_sizes]
        streams = [self._passes(index) for index in range(len(self.batches))]
        for index in turns[torch.randperm(len(turns), generator=generator)].tolist():
            yield [row + offsets[index] for row in next(streams[index])]

    def _passes(self, index: int) -> Iterator[list[int]]:
        """The batches of one data set, one pass through it after another."""
        sampler = self.batch_samplers[index]
        number = self.epoch * math.ceil(self.batches[index] / len(sampler))
        while True:
            sampler.set_epoch(number)
            self._generators[index].manual_seed(self.seed + number)
            batch: list[int] | None = None
            for batch in sampler:
                yield batch
            if batch is None:
                raise SelfposError(
                    f"a task gives no batch of {sampler.batch_size} with distinct texts; lower the batch "
                    "size, or give it records with other texts"
                )
            number += 1

    def __len__(self) -> int:
        return sum(self.batches)
