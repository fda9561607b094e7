"""Losses from embeddings, and parts of batches."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError
from selfpos.positioning.objective import Batch, Draws, TaskProbe, searched_by, split_probe
from selfpos.recipe import PositioningSettings
from selfpos.tasks import get_task
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


def test_of_sorted_records_a_sample_sees_all_grades() -> None:
    data = Dataset.from_dict({"sentence1": words(600, 0), "sentence2": words(600, 1), "score": [n // 100 / 5 for n in range(600)]})
    search, validation = split_probe({"graded": ProbeTask("graded", get_task("sts"), data)}, 0.5, 0, 0.05)
    for part in (search["graded"], validation["graded"]):
        drawn = part.sample(128, seed=0)
        assert drawn.count == 128 and drawn.labels is not None and len(drawn.labels.unique()) == 6
        assert part.sample(300, seed=0).columns == part.everything().columns


def test_covering_batches_look_at_every_record_once() -> None:
    numbers = [str(number) for number in range(600)]
    task = TaskProbe("pairs", PairTask(), Dataset.from_dict({"anchor": numbers, "positive": numbers}), 0.05)
    batches = Draws({"pairs": task}, 256, 0, single=True).covering()
    assert [batch.count for batch in batches] == [200, 200, 200]
    assert sorted(text for batch in batches for text in batch.columns[0]) == sorted(numbers)


def test_the_papers_preset_takes_graded_pairs_by_infonce() -> None:
    """Li et al. have one loss for all tasks; with pairs graded 0 and 1 it is retrieval's of the second."""
    data = Dataset.from_dict({"sentence1": words(12, 0), "sentence2": words(12, 1), "score": [0.0, 1.0] * 6})
    probe = {"graded": ProbeTask("graded", get_task("sts"), data)}
    units = [torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(n)), dim=1) for n in range(2)]
    search, _ = split_probe(searched_by(probe, PositioningSettings(preset="paper")), 0.0, 0, 0.02)
    batch = search["graded"].everything()
    assert batch.labels is None and batch.columns == [data["sentence1"][1::2], data["sentence2"][1::2]]
    expected = torch.nn.functional.cross_entropy(units[0] @ units[1].T / 0.02, torch.arange(6))
    assert search["graded"].loss_of(batch, units).item() == pytest.approx(expected.item(), rel=1e-5)
    assert searched_by(probe, PositioningSettings())["graded"].type.name == "sts"
    assert split_probe(searched_by(probe, PositioningSettings()), 0.0, 0, 0.02)[0]["graded"].everything().labels is not None


def test_covering_batches_keep_the_texts_of_a_label_together() -> None:
    """600 labels of two texts each are all of use, however they are dealt; records without another of their label are of none."""
    labels = [str(number // 2) for number in range(1200)]
    data = Dataset.from_dict({"text": words(1200, 0), "label": labels})
    kind = get_task("classification")
    task = TaskProbe("many", kind, kind.prepare(data, 0), 0.05)
    assert sum(batch.count for batch in Draws({"many": task}, 256, 0, single=True).covering()) >= 1190
    sparse = Dataset.from_dict({"text": words(610, 0), "label": [str(min(number, 599)) for number in range(605)] + ["0"] * 5})
    task = TaskProbe("sparse", kind, kind.prepare(sparse, 0), 0.05)
    assert Draws({"sparse": task}, 256, 0, single=True).covering()


def test_records_that_share_a_text_are_not_parted() -> None:
    """The validation part must not hold half of a pair whose other half is searched on; where nothing is shared, single records are drawn."""
    shared = [f"document {number // 3}" for number in range(60)]
    data = Dataset.from_dict({"anchor": [f"query {number}" for number in range(60)], "positive": shared})
    search, validation = split_probe({"pairs": ProbeTask("pairs", get_task("retrieval"), data)}, 0.5, 0, 0.05)
    assert (len(search["pairs"].dataset), len(validation["pairs"].dataset)) == (30, 30)
    assert not set(search["pairs"].dataset["positive"]) & set(validation["pairs"].dataset["positive"])
    lone = Dataset.from_dict({"anchor": [f"a{number}" for number in range(40)], "positive": [f"b{number}" for number in range(40)]})
    _, validation = split_probe({"pairs": ProbeTask("pairs", get_task("retrieval"), lone)}, 0.25, 7, 0.05)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(7)).tolist()
    assert validation["pairs"].dataset["anchor"][:] == [f"a{row}" for row in sorted(order[:10])]


def test_where_all_records_share_a_text_they_are_parted_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    data = Dataset.from_dict({"anchor": [f"query {number}" for number in range(20)], "positive": ["one"] * 20})
    _, validation = split_probe({"pairs": ProbeTask("pairs", get_task("retrieval"), data)}, 0.5, 0, 0.05)
    assert len(validation["pairs"].dataset) == 10 and "task pairs share texts" in caplog.text


def test_a_task_without_records_is_named() -> None:
    empty = Dataset.from_dict({"anchor": [], "positive": []})
    with pytest.raises(SelfposError, match="the probe of task lone: the data set"):
        split_probe({"lone": ProbeTask("lone", get_task("retrieval"), empty)}, 0.5, 0, 0.05)
