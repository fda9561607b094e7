from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch.utils.data import ConcatDataset

from selfpos.errors import SelfposError
from selfpos.recipe import MixtureSettings
from selfpos.training.samplers import MixtureBatchSampler, records_per_epoch

ENGLISH = {"sts": 271_612, "retrieval": 769_082}
CHINESE = {"sts": 802_291, "retrieval": 383_386}
RATIOS = [(3, 1), (3, 2), (1, 1), (2, 3), (1, 3)]


def resampled(size: str, ratio: tuple[float, float]) -> MixtureSettings:
    return MixtureSettings(mixture="resampled", size=size, ratio={"sts": ratio[0], "retrieval": ratio[1]})  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [ENGLISH, CHINESE])
@pytest.mark.parametrize("ratio", RATIOS)
def test_resampling_keeps_the_ratio_and_the_total_or_the_largest(
    sizes: dict[str, int], ratio: tuple[int, int]
) -> None:
    for size, whole in (("total", sum), ("max", max)):
        found = records_per_epoch(resampled(size, ratio), sizes)
        assert found["sts"] / found["retrieval"] == pytest.approx(ratio[0] / ratio[1], rel=1e-4)
        assert whole(found.values()) == pytest.approx(whole(sizes.values()), abs=1)


@pytest.mark.parametrize(
    ("sizes", "total_hours", "max_hours"), [(ENGLISH, 30.05, 35.43), (CHINESE, 35.79, 38.82)]
)
def test_the_epochs_are_as_long_as_the_papers_training_times_say(
    sizes: dict[str, int], total_hours: float, max_hours: float
) -> None:
    length = {
        size: sum(sum(records_per_epoch(resampled(size, ratio), sizes).values()) for ratio in RATIOS)
        for size in ("total", "max")
    }
    assert length["max"] / length["total"] == pytest.approx(max_hours / total_hours, rel=0.005)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.floats(0, 1))
def test_temperature_lies_between_equal_shares_and_proportional(sizes: list[int], alpha: float) -> None:
    named = {str(place): size for place, size in enumerate(sizes)}
    found = records_per_epoch(MixtureSettings(mixture="temperature", alpha=alpha), named)
    weights = [size**alpha for size in sizes]
    assert list(found.values()) == pytest.approx(
        [sum(sizes) * weight / sum(weights) for weight in weights], abs=0.5 + 1e-6
    )
    assert records_per_epoch(MixtureSettings(mixture="temperature", alpha=1.0), named) == named
    assert records_per_epoch(MixtureSettings(), named) == named
    assert set(records_per_epoch(MixtureSettings(mixture="round-robin"), named).values()) == {min(sizes)}


def sampler(sizes: list[int], batches: list[int], batch_size: int = 4) -> MixtureBatchSampler:
    parts = [DefaultOrder(list(range(size)), batch_size) for size in sizes]
    return MixtureBatchSampler(ConcatDataset([range(size) for size in sizes]), parts, batches, seed=3)  # type: ignore[list-item]


class DefaultOrder(DefaultBatchSampler):
    """Shuffled batches, drawn as the library's samplers draw theirs."""

    def __init__(self, rows: list[int], batch_size: int) -> None:
        super().__init__(rows, batch_size, drop_last=True)  # type: ignore[arg-type]
        self.rows, self.generator = rows, torch.Generator()

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.generator.manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.rows), generator=self.generator).tolist()
        yield from (
            order[at : at + self.batch_size]
            for at in range(0, len(order) - self.batch_size + 1, self.batch_size)
        )

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size


def test_an_epoch_has_the_batches_asked_for_each_of_one_data_set() -> None:
    mixed = sampler([8, 40], [7, 3])
    epoch = list(mixed)
    assert len(epoch) == len(mixed) == 10
    origins = [{row >= 8 for row in batch} for batch in epoch]
    assert all(len(origin) == 1 for origin in origins)
    assert Counter(origin.pop() for origin in origins) == {False: 7, True: 3}
    rows = Counter(row for batch in epoch for row in batch if row < 8)
    assert set(rows) == set(range(8)) and set(rows.values()) <= {3, 4}  # three and a half passes
    assert max(Counter(row for batch in epoch for row in batch if row >= 8).values()) == 1


def test_the_order_depends_on_the_epoch_alone() -> None:
    first, again = sampler([8, 40], [7, 3]), sampler([8, 40], [7, 3])
    epochs = []
    for epoch in range(3):
        first.set_epoch(epoch)
        epochs.append(list(first))
    again.set_epoch(1)
    assert list(again) == epochs[1]
    assert epochs[0] != epochs[1] != epochs[2]
    assert (
        len({tuple(sorted(row for batch in epoch for row in batch if row >= 8)) for epoch in epochs}) == 3
    )  # other parts of the large set


def test_a_data_set_without_a_batch_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = sampler([8, 8], [1, 1])
    monkeypatch.setattr(
        DefaultOrder, "__iter__", lambda self: iter(())
    )  # as a sampler that promised more than its data has
    with pytest.raises(SelfposError, match="lower the batch size"):
        list(mixed)
