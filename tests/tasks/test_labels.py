"""What labels of pairs mean: as numbers, words and names, in every order; all others are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import ClassLabel, Dataset

from selfpos.errors import SelfposError
from selfpos.tasks import get_task
from selfpos.tasks.labels import MEANING, RIGHT, WRONG, right_or_wrong

FORMS: list[tuple[Any, Any]] = [
    (1, 0),
    (1.0, 0.0),
    (True, False),
    ("1", "0"),
    ("1.0", "0.0"),
    ("True", "FALSE"),
    ("yes", "no"),
    ("entailment", "not_entailment"),
    ("Entailment", "not entailment"),
    ("entails", "not-entails"),
    ("duplicate", "not_duplicate"),
    ("paraphrase", "non-paraphrase"),
    ("relevant", "irrelevant"),
    ("equivalent", "not_equivalent"),
    ("is_match", "mismatch"),
]


def pairs(labels: list[Any], *, names: list[str] | None = None, **columns: str) -> Dataset:
    first, second = columns.get("first", "question"), columns.get("second", "passage")
    data = Dataset.from_dict(
        {
            first: [f"q {n}" for n in range(len(labels))],
            second: [f"p {n}" for n in range(len(labels))],
            "label": labels,
        }
    )
    return data.cast_column("label", ClassLabel(names=names)) if names else data


@pytest.mark.parametrize(("right", "wrong"), FORMS)
def test_every_form_of_right_and_wrong_trains_on_the_right_pairs(right: Any, wrong: Any) -> None:
    data = pairs([right, wrong, wrong, right, wrong])
    assert get_task("retrieval").prepare(data, 0)["anchor"][:] == ["q 0", "q 3"]
    assert get_task("pair-classification").prepare(data, 0)["label"][:] == [1, 0, 0, 1, 0]
    grouped = data.remove_columns("question").add_column("question", ["q"] * 5)
    assert get_task("reranking").canonical(grouped).to_list() == [
        {"query": "q", "positive": ["p 0", "p 3"], "negative": ["p 1", "p 2", "p 4"]}
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["entailment", "not_entailment"],
        ["not_entailment", "entailment"],
        ["duplicate", "not_duplicate"],
        ["1", "0"],
    ],
)
def test_names_of_labels_count_whatever_their_order(names: list[str]) -> None:
    data = pairs([0, 1, 1, 0, -1], names=names)
    right = 0 if names[0] in RIGHT else 1
    asked = [row for row, label in enumerate([0, 1, 1, 0]) if label == right]
    assert get_task("retrieval").prepare(data, 0)["anchor"][:] == [f"q {row}" for row in asked]
    labels = get_task("pair-classification").prepare(data, 0)["label"][:]
    assert labels == [int(row in asked) for row in range(4)]


@pytest.mark.parametrize("task", ["sts", "pair-classification", "retrieval"])
@pytest.mark.parametrize("columns", [("premise", "hypothesis"), ("sentence1", "sentence2")])
def test_an_inference_set_in_any_order_of_names_is_the_same(task: str, columns: tuple[str, str]) -> None:
    first, second = columns
    found = []
    for names in (
        ["entailment", "neutral", "contradiction"],
        ["contradiction", "entailment", "neutral"],
        ["NEUTRAL", "CONTRADICTION", "ENTAILMENT"],
    ):
        ways = ["entailment", "contradiction", "neutral", "contradiction"]
        lower = [name.lower() for name in names]
        data = pairs([lower.index(way) for way in ways], names=names, first=first, second=second)
        data = data.remove_columns(first).add_column(first, ["same"] * 4)
        found.append(get_task(task).prepare(data, 0).to_list())
    assert found[0] == found[1] == found[2] and len(found[0]) > 1


def test_snlis_own_files_and_its_disagreements_are_understood() -> None:
    data = pairs(["entailment", "-", "contradiction", "neutral"], first="sentence1", second="sentence2")
    data = data.rename_column("label", "gold_label")
    assert get_task("sts").prepare(data, 0)["score"][:] == [1.0, 0.0, 0.5]
    assert get_task("pair-classification").prepare(data, 0)["label"][:] == [1, 0]


def test_a_two_way_inference_set_is_one_of_right_and_wrong_pairs() -> None:
    data = pairs(["entailment", "not_entailment", "entailment"], first="premise", second="hypothesis")
    assert get_task("pair-classification").prepare(data, 0)["label"][:] == [1, 0, 1]
    assert get_task("retrieval").prepare(data, 0)["positive"][:] == ["p 0", "p 2"]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ([0, 1, 2], "found 2;"),
        ([0, 1, 2, 3], "found 2, 3;"),
        ([1, -1], "found -1 beside 1;"),
        ([0.0, 0.5, 1.0], "found 0.5;"),
        (["sports", "news"], "found news, sports;"),
        (["good", "bad"], "found bad, good;"),
    ],
)
@pytest.mark.parametrize("task", ["retrieval", "pair-classification"])
def test_labels_of_something_else_are_refused_by_name(task: str, labels: list[Any], named: str) -> None:
    with pytest.raises(SelfposError) as caught:
        get_task(task).prepare(pairs(labels), 0)
    assert named in str(caught.value) and "column 'label'" in str(caught.value)
    assert task != "retrieval" or "leave it out (--column label=" in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "kept"), [([1, 0, 1], 2), ([1.0, 0.0], 1), ([0.3, 0.9], 2), ([1, 1], 2), ([0, 5], 2)]
)
def test_scores_of_one_and_nought_mark_the_right_pairs(scores: list[Any], kept: int) -> None:
    data = pairs(scores).rename_column("label", "score")
    assert len(get_task("retrieval").prepare(data, 0)) == kept


def test_a_label_of_something_else_may_be_left_out() -> None:
    data = pairs(["sports", "news"])
    assert len(get_task("retrieval").canonical(data, {"label": ""})) == 2


def test_columns_chosen_by_hand_do_not_hide_the_labels() -> None:
    data = pairs(["contradiction", "entailment", "neutral"], first="premise", second="hypothesis")
    chosen = {"anchor": "premise", "positive": "hypothesis"}
    assert get_task("retrieval").canonical(data, chosen)["positive"][:] == ["p 1"]
    with pytest.raises(SelfposError, match="found 2"):
        get_task("retrieval").canonical(pairs([0, 1, 2], first="premise", second="hypothesis"), chosen)


def test_nothing_right_and_nothing_labelled_are_refused() -> None:
    with pytest.raises(SelfposError, match="marks none of 2 pairs as right"):
        get_task("retrieval").prepare(pairs([0, 0]), 0)
    with pytest.raises(SelfposError, match="has no label on any of 2 records"):
        get_task("pair-classification").prepare(pairs([-1, -1]), 0)


def test_the_table_has_no_word_twice() -> None:
    assert not set(RIGHT) & set(WRONG) and len(MEANING) > 60
    assert right_or_wrong(["yes", None, "no"], "x") == [1, None, 0]


def test_lists_of_labels_are_refused() -> None:
    several = Dataset.from_dict({"text": ["a", "b"], "labels": [[1, 2], [2]]})
    with pytest.raises(SelfposError, match="'labels' holds a list of labels for each text: there is no task"):
        get_task("classification").canonical(several)


def test_names_of_classes_go_before_numbers() -> None:
    one = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).cast_column(
        "label", ClassLabel(names=["bad", "good"])
    )
    assert get_task("classification").canonical(one)["label"][:] == ["bad", "good"]
