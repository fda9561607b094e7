"""Batches of texts of like length, so that little of a batch is padding, under the same rules as any other batch of the task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from sentence_transformers.base.sampler import SetEpochMixin
from torch.utils.data import BatchSampler

if TYPE_CHECKING:
    from datasets import Dataset

    from selfpos.tasks import TaskType

POOL = 50
"""Batches that are sorted by length together: more of them pad less and mix less."""
CHARACTERS = 5
"""To a token, about: a text that is cut anyway counts as no longer than what is left of it."""
PASSES = 3
"""Over the data to reach the promised number of batches, where records that share texts leave some of them short."""


class LengthBatchSampler(SetEpochMixin, BatchSampler):
    """Random batches of `size` records of like length, in random order; every epoch is drawn anew from the seed and its number.

    The records are shuffled and cut into pools of 50 batches. Within a pool they are sorted by the length of their texts in characters, each
    text counted up to what `max_tokens` of them come to, and cut into batches. The rules are the type's own: where a batch's other texts serve
    as negatives (sampler `no_duplicates`) no two of its records share a text; where labels say which do (`group_by_label`) it holds two or
    more records of each of two or more labels. What would break a rule waits for the next batch or pool; an incomplete batch is dropped.

    Raises ValueError where no full batch comes of the data, as the library's own samplers do.
    """

    def __init__(
        self,
        dataset: Dataset,
        kind: TaskType,
        size: int,
        generator: torch.Generator,
        seed: int,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__(range(len(dataset)), size, True)
        self.rule, self.generator, self.seed = kind.sampler, generator, seed
        columns = kind.texts_of(column for column in dataset.column_names if column != "dataset_name")
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
            # A batch holds at least two records of another label than its commonest.
            usable = int(min(counts.sum(), (counts.sum() - counts.max()) // 2 * size))
        self._count = usable // size

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        given = 0
        for _ in range(PASSES):
            for batch in self._pass():
                if given == self._count:
                    return
                yield batch
                given += 1

    def _pass(self) -> Iterator[list[int]]:
        """Batches of one shuffle of the data."""
        units = self._units()
        waiting: list[list[int]] = []
        pool = POOL * self.batch_size // (2 if self.labels is not None else 1)
        for start in range(0, len(units), pool):
            waiting = sorted(waiting + units[start : start + pool], key=self._length)
            batches = []
            while batch := self._take(waiting):
                batches.append(batch)
            for place in torch.randperm(len(batches), generator=self.generator).tolist():
                yield batches[place]

    def _units(self) -> list[list[int]]:
        """What goes into a batch together, shuffled: single records, or two of one label and of like length."""
        order = torch.randperm(len(self.lengths), generator=self.generator).tolist()
        if self.labels is None:
            return [[row] for row in order]
        groups: dict[Any, list[int]] = defaultdict(list)
        for row in order:
            groups[self.labels[row]].append(row)
        units = []
        for rows in groups.values():
            rows = sorted(rows[: len(rows) // 2 * 2], key=self.lengths.__getitem__)
            units += [rows[place : place + 2] for place in range(0, len(rows), 2)]
        return [units[place] for place in torch.randperm(len(units), generator=self.generator).tolist()]

    def _length(self, unit: list[int]) -> int:
        return int(max(self.lengths[row] for row in unit))

    def _take(self, waiting: list[list[int]]) -> list[int]:
        """The first batch that the rules allow out of `waiting`, from which it is removed; empty when they allow none."""
        batch: list[int] = []
        chosen: set[int] = set()
        seen: set[int] = set()
        for place, unit in enumerate(waiting):
            if self._allowed(batch, unit, seen):
                batch += unit
                chosen.add(place)
                seen.update(text for row in unit for text in self.texts[row])
                if len(batch) == self.batch_size:
                    waiting[:] = [unit for place, unit in enumerate(waiting) if place not in chosen]
                    return batch
        return []

    def _allowed(self, batch: list[int], unit: list[int], seen: set[int]) -> bool:
        if self.rule == "no_duplicates":
            return seen.isdisjoint(self.texts[unit[0]])
        if self.labels is not None and len(batch) + len(unit) == self.batch_size:
            return len({self.labels[row] for row in (*batch, *unit)}) > 1
        return True


def _measure(
    dataset: Dataset, columns: Sequence[str], most: int | None
) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """The length of each record's texts together, in characters, each counted up to `most`; and the hashes of its texts."""
    lengths, hashes = [], []
    for rows in dataset.with_format(None).select_columns(list(columns)).iter(1000):
        for texts in zip(*(rows[column] for column in columns), strict=True):
            lengths.append(sum(min(len(text), most or len(text)) for text in texts))
            hashes.append(tuple(xxhash.xxh3_64_intdigest(text.encode()) for text in texts))
    return np.array(lengths), hashes
