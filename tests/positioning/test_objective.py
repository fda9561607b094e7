"""Losses from embeddings, and parts of batches."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from selfpos.errors import SelfposError
from selfpos.positioning.objective import Batch, TaskProbe
from tests.positioning.stand_ins import PairTask, pairs, words


def test_without_in_batch_negatives_only_a_records_own_negative_counts() -> None:
    data = Dataset.from_dict({"anchor": words(6, 0), "positive": words(6, 1), "negative": words(6, 2)})
    task = TaskProbe("triples", PairTask(), data, 0.1, in_batch_negatives=False)
    units = [torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(n)), dim=1) for n in range(3)]
    cosines = torch.stack([(units[0] * other).sum(1) for other in units[1:]], 1) / 0.1
    expected = -torch.log_softmax(cosines, 1)[:, 0].mean()
    assert task.loss_of(task.everything(), units).item() == pytest.approx(expected.item(), rel=1e-5)


def test_pairs_have_no_negatives_of_their_own() -> None:
    probe = pairs(6)
    task = TaskProbe("pairs", probe.type, probe.dataset, 0.1, in_batch_negatives=False)
    with pytest.raises(SelfposError, match="no negatives of its own"):
        task.loss_of(task.everything(), [torch.randn(6, 5)] * 2)


def test_a_part_keeps_neighbours_together() -> None:
    labels = torch.arange(20) // 2
    part = Batch("task", [[f"text {n}" for n in range(20)]], labels).part(0.5, torch.Generator().manual_seed(0))
    assert part.count == 10
    assert part.labels is not None
    assert torch.equal(part.labels[::2], part.labels[1::2])
    assert part.columns[0] == [f"text {2 * int(label) + odd}" for label in part.labels[::2] for odd in (0, 1)]
