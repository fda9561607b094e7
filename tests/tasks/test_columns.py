"""Which columns become which text, where names and forms can be taken in two ways."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from selfpos.errors import SelfposError
from selfpos.recipe import TrainingSettings
from selfpos.tasks import get_task

RETRIEVAL = get_task("retrieval")


def numbered(count: int = 3) -> Dataset:
    names = ("anchor", "positive", "negative_1", "negative_2")
    return Dataset.from_list([{name: f"{name} of {n}" for name in names} for n in range(count)])


def test_a_numbered_negative_that_is_named_is_taken_once() -> None:
    found = RETRIEVAL.canonical(numbered(), {"negative": "negative_2"})
    assert found.column_names == ["anchor", "positive", "negative", "negative_2"]
    assert found[0]["negative"] == "negative_2 of 0" and found[0]["negative_2"] == "negative_1 of 0"
    found = RETRIEVAL.canonical(numbered(), {"positive": "negative_1"})
    assert found[0] == {"anchor": "anchor of 0", "positive": "negative_1 of 0", "negative": "negative_2 of 0"}


@pytest.mark.parametrize("name", ["retrieval", "instruction-retrieval"])
def test_negatives_left_out_are_left_out(name: str) -> None:
    found = get_task(name).canonical(numbered(), {"negative": ""})
    assert not [column for column in found.column_names if column.startswith("negative")]


def test_a_record_without_a_negative_gets_one_of_another_record_and_never_its_own_text() -> None:
    rows = [
        {"anchor": "q 0", "positive": "n 1", "negative": None},
        {"anchor": "q 1", "positive": "p 1", "negative": "n 1"},
        {"anchor": "q 2", "positive": "p 2", "negative": "n 2"},
        {"anchor": "n 2", "positive": "p 3", "negative": " "},
    ]
    for seed in range(5):
        found = RETRIEVAL.prepare(Dataset.from_list(rows), seed)
        assert found["negative"][:] == ["n 2", "n 1", "n 2", "n 1"]
    with pytest.raises(
        SelfposError, match="positive 'n 1' has no negative, and those of other records are its own"
    ):
        RETRIEVAL.prepare(Dataset.from_list(rows[:2]), 0)


@pytest.mark.parametrize("column", ["label", "score"])
def test_pairs_none_of_which_is_right_are_refused(column: str) -> None:
    rows = [{"anchor": f"q {n}", "positive": f"p {n}", column: 0} for n in range(3)]
    with pytest.raises(SelfposError, match=f"'{column}' marks none of 3 pairs as right; .*--column label="):
        RETRIEVAL.canonical(Dataset.from_list(rows))
    found = RETRIEVAL.canonical(Dataset.from_list(rows), {"label": ""})
    assert found["anchor"][:] == ["q 0", "q 1", "q 2"]


@pytest.mark.parametrize(("scores", "kept"), [((0, 1, 0), ["q 1"]), ((1, 1, 1), ["q 0", "q 1", "q 2"])])
def test_scores_of_0_and_1_say_which_pairs_are_right(scores: tuple[int, ...], kept: list[str]) -> None:
    rows = [{"anchor": f"q {n}", "positive": f"p {n}", "score": score} for n, score in enumerate(scores)]
    assert RETRIEVAL.canonical(Dataset.from_list(rows))["anchor"][:] == kept


def of_two(first: str, second: str, **others: Any) -> Dataset:
    return Dataset.from_list(
        [{first: [f"a {n}", f"b {n}"], second: [f"c {n}", f"d {n}"], **others} for n in (0, 1)]
    )


def test_two_texts_are_an_instruction_only_where_a_text_asks() -> None:
    for name, columns in (("bitext", ("source", "target")), ("sts", ("sentence1", "sentence2"))):
        others = {"score": 1.0} if name == "sts" else {}
        with pytest.raises(SelfposError, match=f"column '{columns[0]}' must hold text"):
            get_task(name).canonical(of_two(*columns, **others))
    found = RETRIEVAL.canonical(of_two("query", "pos"))
    assert found[0] == {"anchor": "a 0 b 0", "positive": "c 0 d 0"}


def test_pairs_that_a_loss_of_positives_took_are_accepted_again() -> None:
    infonce = get_task("sts").under(TrainingSettings(sts_loss="infonce", sts_positive=0.5))
    graded = {"sentence1": list("abc"), "sentence2": list("xyz"), "score": [0.0, 0.5, 1.0]}
    pairs = infonce.prepare(Dataset.from_dict(graded), 0)
    assert pairs.to_list() == [{"anchor": "b", "positive": "y"}, {"anchor": "c", "positive": "z"}]
    assert infonce.canonical(pairs).to_list() == pairs.to_list()


def test_an_inference_set_without_a_pair_of_opposites_gives_no_triple() -> None:
    rows = [
        {"premise": "p", "hypothesis": "e", "label": "entailment"},
        {"premise": "q", "hypothesis": "c", "label": "contradiction"},
    ]
    with pytest.raises(SelfposError, match="no premise of the inference set has both an entailment and a"):
        RETRIEVAL.canonical(Dataset.from_list(rows))
