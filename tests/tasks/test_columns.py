"""Which columns become which text, where names and forms can be taken in two ways."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from selfpos.errors import SelfposError
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
