"""The order of batches in a joint training whose tasks are seen more or less often than their sizes say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler
from torch.utils.data import ConcatDataset

from selfpos.errors import SelfposError


class MixtureBatchSampler(MultiDatasetDefaultBatchSampler):
    """A fixed number of batches from each data set in every epoch, in random order.

    A data set with more batches than asked for gives others in the next epoch; one with fewer is gone through again, in another order.
    `batches` are the numbers, one per data set. The order depends on `seed` and the epoch alone.
    """

    def __init__(
        self,
        dataset: ConcatDataset,
        batch_samplers: list[Any],
        batches: Sequence[int],
        *,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_samplers, seed=seed)
        self.batches = batches
        self._generators = [
            torch.Generator() for _ in batch_samplers
        ]  # not one for all, which a new pass would start anew for the others
        for sampler, generator in zip(batch_samplers, self._generators, strict=True):
            sampler.generator = generator
            if hasattr(sampler.sampler, "generator"):  # of those that shuffle by another sampler
                sampler.sampler.generator = generator

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        turns = torch.tensor([place for place, count in enumerate(self.batches) for _ in range(count)])
        offsets = [0, *self.dataset.cumulative_sizes]
        streams = [self._passes(place) for place in range(len(self.batches))]
        for place in turns[torch.randperm(len(turns), generator=generator)].tolist():
            yield [row + offsets[place] for row in next(streams[place])]

    def _passes(self, place: int) -> Iterator[list[int]]:
        """The batches of one data set, one pass through it after another."""
        sampler = self.batch_samplers[place]
        passes = math.ceil(self.batches[place] / len(sampler))
        number = self.epoch * passes
        while True:
            sampler.set_epoch(number)
            self._generators[place].manual_seed(self.seed + number)
            empty = True
            for batch in sampler:
                empty = False
                yield batch
            if empty:
                raise SelfposError(
                    f"a task gives no batch of {sampler.batch_size} with distinct texts; lower the batch size"
                )
            number += 1

    def __len__(self) -> int:
        return sum(self.batches)
