"""Losses from embeddings, and parts of batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from selfpos.data.probe import ProbeTask
from selfpos.errors import SelfposError
from selfpos.positioning.draws import check_draws, probe_under, sharing_texts, split_probe
from selfpos.positioning.objective import Balance, SearchProbe
from selfpos.positioning.problem import Problem
from selfpos.recipe import PositioningSettings
from selfpos.tasks import get_task
from selfpos.tasks.types.candidates import CandidatePairs
from tests.helpers.stand_ins import words


def test_of_sorted_records_a_sample_sees_all_grades() -> None:
    data = Dataset.from_dict(
        {"sentence1": words(600, 0), "sentence2": words(600, 1), "score": [n // 100 / 5 for n in range(600)]}
    )
    search, validation = split_probe({"graded": ProbeTask("graded", get_task("sts"), data)}, 0.5, 0, 0.05)
    for part in (search["graded"], validation["graded"]):
        drawn = part.sample(128, seed=0)
        assert drawn.count == 128 and drawn.labels is not None and len(drawn.labels.unique()) == 6
        assert part.sample(300, seed=0).columns == part.everything().columns


def test_the_papers_preset_takes_graded_pairs_by_infonce() -> None:
    """Li et al. have one loss for all tasks; with pairs graded 0 and 1 it is retrieval's of the second."""
    data = Dataset.from_dict({"sentence1": words(12, 0), "sentence2": words(12, 1), "score": [0.0, 1.0] * 6})
    probe = {"graded": ProbeTask("graded", get_task("sts"), data)}
    units = [
        torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(n)), dim=1)
        for n in range(2)
    ]
    search, _ = split_probe(probe_under(probe, PositioningSettings(preset="paper")), 0.0, 0, 0.02)
    batch = search["graded"].everything()
    assert batch.labels is None and batch.columns == [data["sentence1"][1::2], data["sentence2"][1::2]]
    expected = torch.nn.functional.cross_entropy(units[0] @ units[1].T / 0.02, torch.arange(6))
    assert search["graded"].loss_of(batch, units).item() == pytest.approx(expected.item(), rel=1e-5)
    assert probe_under(probe, PositioningSettings())["graded"].type.name == "sts"
    assert (
        split_probe(probe_under(probe, PositioningSettings()), 0.0, 0, 0.02)[0]["graded"].everything().labels
        is not None
    )


def test_records_that_share_a_text_are_not_parted() -> None:
    """The validation part must not hold half of a pair whose other half is searched on; where nothing is
    shared, single records are drawn."""
    shared = [f"document {number // 3}" for number in range(60)]
    data = Dataset.from_dict({"anchor": [f"query {number}" for number in range(60)], "positive": shared})
    search, validation = split_probe({"pairs": ProbeTask("pairs", get_task("retrieval"), data)}, 0.5, 0, 0.05)
    assert (len(search["pairs"].dataset), len(validation["pairs"].dataset)) == (30, 30)
    assert not set(search["pairs"].dataset["positive"]) & set(validation["pairs"].dataset["positive"])
    lone = Dataset.from_dict(
        {"anchor": [f"a{number}" for number in range(40)], "positive": [f"b{number}" for number in range(40)]}
    )
    _, validation = split_probe({"pairs": ProbeTask("pairs", get_task("retrieval"), lone)}, 0.25, 7, 0.05)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(7)).tolist()
    assert validation["pairs"].dataset["anchor"][:] == [f"a{row}" for row in sorted(order[:10])]


def retrieval_probe(anchors: list[str], positives: list[str]) -> ProbeTask:
    return ProbeTask(
        "task", get_task("retrieval"), Dataset.from_dict({"anchor": anchors, "positive": positives})
    )


def graded_probe(premises: int, count: int) -> ProbeTask:
    columns = {"sentence1": [f"premise {n % premises}" for n in range(count)], "sentence2": words(count, 1)}
    return ProbeTask(
        "task", get_task("sts"), Dataset.from_dict(columns | {"score": [n % 5 / 4 for n in range(count)]})
    )


def labelled_pairs_probe(premises: int, count: int) -> ProbeTask:
    columns = {"sentence1": [f"premise {n % premises}" for n in range(count)], "sentence2": words(count, 1)}
    return ProbeTask(
        "task",
        get_task("pair-classification"),
        Dataset.from_dict(columns | {"label": [n // premises % 2 for n in range(count)]}),
    )


CROWDED = {
    "all records share one text": retrieval_probe(words(20, 0), ["one"] * 20),
    "half of the pairs ask one question": retrieval_probe(["one"] * 32 + words(32, 0), words(64, 1)),
    "one premise's scores are equal": ProbeTask(
        "task",
        get_task("sts"),
        Dataset.from_dict(
            {"sentence1": ["one"] * 4 + ["two"] * 4, "sentence2": words(8, 1), "score": [0.0] * 4 + [1.0] * 4}
        ),
    ),
    "two questions": retrieval_probe(["one"] * 4 + ["two"] * 4, words(8, 1)),
}


@pytest.mark.parametrize("name", CROWDED)
def test_what_cannot_be_kept_apart_is_parted_so_that_both_parts_give_batches(name: str) -> None:
    probe = CROWDED[name]
    search, validation = split_probe({"task": probe}, 0.5, 0, 0.05)
    order = torch.randperm(len(probe.dataset), generator=torch.Generator().manual_seed(0)).tolist()
    held = sorted(order[: len(order) // 2])
    assert validation["task"].dataset[:] == probe.dataset.select(held)[:]
    assert sharing_texts(search, validation) == ["task"]


@pytest.mark.parametrize(
    "probe",
    [
        graded_probe(2, 8),
        labelled_pairs_probe(2, 16),
        retrieval_probe([f"question {n // 2}" for n in range(16)], words(16, 1)),
    ],
    ids=["graded pairs of two premises", "labelled pairs of two premises", "eight questions"],
)
def test_few_large_groups_are_kept_apart_where_both_parts_give_batches(probe: ProbeTask) -> None:
    search, validation = split_probe({"task": probe}, 0.5, 0, 0.05)
    assert sharing_texts(search, validation) == []
    assert len(validation["task"].dataset) == len(search["task"].dataset)
    check_draws(search, 32)
    check_draws(validation, 32)


def test_of_a_rerankers_pairs_questions_with_a_common_right_answer_are_not_parted() -> None:
    """A wrong candidate is the right answer to another question, and parts none."""
    rows = [
        {"query": f"question {n}", "positive": [f"answer {n // 2}"], "negative": ["no", f"wrong {n}"]}
        for n in range(20)
    ]
    probe = ProbeTask("task", CandidatePairs(), Dataset.from_list(rows))
    search, validation = split_probe({"task": probe}, 0.5, 0, 0.05)
    held = set(validation["task"].dataset["query"])
    assert len(held) == 10
    assert all((f"question {n}" in held) == (f"question {n + 1}" in held) for n in range(0, 20, 2))
    assert sharing_texts(search, validation) == []


def test_a_task_that_gives_no_batch_is_named_before_the_search() -> None:
    search, _ = split_probe({"crowded": CROWDED["all records share one text"]}, 0.0, 0, 0.05)
    with pytest.raises(SelfposError, match=r"the probe of task crowded: a batch needs 2 .*; raise"):
        check_draws(search, 32)


def test_a_large_group_is_not_held_out_whole_where_small_ones_will_do() -> None:
    anchors = ["one"] * 60 + [f"question {number}" for number in range(140)]
    for seed in range(5):
        search, validation = split_probe({"task": retrieval_probe(anchors, words(200, 1))}, 0.5, seed, 0.05)
        assert "one" not in validation["task"].dataset["anchor"] and len(validation["task"].dataset) == 100
        assert sharing_texts(search, validation) == []


def test_a_task_without_records_is_named() -> None:
    empty = Dataset.from_dict({"anchor": [], "positive": []})
    with pytest.raises(SelfposError, match="the probe of task lone: the data set"):
        split_probe({"lone": ProbeTask("lone", get_task("retrieval"), empty)}, 0.5, 0, 0.05)


def test_losses_are_weighed_in_units_of_the_bases() -> None:
    losses = {"a": torch.tensor(3.0), "b": torch.tensor(1.0)}
    assert Balance()(losses).item() == pytest.approx(2.0)
    assert Balance({"a": 3.0})(losses).item() == pytest.approx(2.5)
    assert Balance({}, {"a": 2.0, "b": -4.0})(losses).item() == pytest.approx(0.875)
    assert Balance({}, {"a": 2.0, "b": 0.0}).value({"a": 3.0, "b": 1.0}) == pytest.approx(1.25)
    assert Balance({}, {"a": 2.0, "b": 4.0})({"a": losses["a"]}).item() == pytest.approx(1.5)


def test_a_question_to_whose_texts_all_are_right_costs_nothing() -> None:
    data = Dataset.from_dict({"anchor": ["q"], "positive": ["p"]})
    probe = SearchProbe("lone", get_task("retrieval"), data, 0.05)
    scores = torch.tensor([[3.0]], requires_grad=True)
    loss = probe.loss_of(probe.everything(), [scores])
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_a_mean_coefficient_is_weighed_by_the_length_that_a_tensor_has_of_the_vector() -> None:
    table, shares = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.25, 0.0], [0.75, 0.0]])
    problem: Any = SimpleNamespace(table=lambda parameters: table, tensor_shares=shares)
    found = Problem.mean_coefficients(problem, table)
    assert found.tolist() == [2.5, 2.0], "a vector without any length has the plain mean"
