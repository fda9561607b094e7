"""What is said of a front, from its facts."""

from __future__ import annotations

from typing import Any

import pytest

from selfpos.retention.story import rows, sentences


def shown(line: str, alpha: float, ramp: float = 0.0) -> dict[str, Any]:
    numbers = {"domain": 0.5, "general": 0.5, "kept": alpha, "undone": None}
    return {"line": line, "alpha": alpha, "ramp": ramp, **numbers}


def facts(**more: Any) -> dict[str, Any]:
    return {
        "chosen": {"alpha": 0.2, "ramp": 0.0}, "kept": (0.9, (0.8, 1.0)), "undone": None, "drops": [],
        "worst": {"task": "g", "worst": 0.0}, "tolerated": {}, "warnings": [], **more,
    }  # fmt: skip


def test_a_fine_tune_that_is_taken_whole_is_one_row() -> None:
    base, tuned = shown("t", 0.0), shown("t", 1.0)
    _, lines = rows({"front": [base, tuned], "base": base, "tuned": tuned, "chosen": tuned})
    assert [line[0] for line in lines] == ["base", "fine-tune, taken"]


@pytest.mark.parametrize(("other", "name"), [("u", "u"), ("t", "")])
def test_of_several_fine_tunes_a_row_says_which_it_is_of(other: str, name: str) -> None:
    base, between, taken, tuned = shown("t", 0.0), shown(other, 0.4), shown("t", 0.5), shown("t", 1.0)
    front = [base, between, taken, tuned]
    _, lines = rows({"front": front, "base": base, "tuned": tuned, "chosen": taken})
    assert [line[0] for line in lines] == ["base", name, "taken", "fine-tune"]


@pytest.mark.parametrize(
    ("ramp", "words"),
    [(0.0, ""), (0.25, " with a ramp of +0.25 over depth"), (-0.5, " with a ramp of -0.50 over depth")],
)
def test_the_point_that_is_taken_is_said_with_its_ramp(ramp: float, words: str) -> None:
    taken, _ = sentences(facts(chosen={"alpha": 0.2, "ramp": ramp}))
    assert taken == (
        f"taken: α = 0.20{words}, which keeps 90 % of the domain's gain (80 to 100 %); "
        "the fine-tune lost nothing clear on the general tasks"
    )


@pytest.mark.parametrize(("worst", "possible"), [(-0.021, True), (0.0, False), (0.01, False)])
def test_a_loss_that_may_be_is_said_where_there_may_be_one(worst: float, possible: bool) -> None:
    _, promise = sentences(facts(worst={"task": "g", "worst": worst}))
    assert promise.startswith("no general task is significantly below the base")
    assert ("at worst 2.1 points, of g (95 % for all tasks together)" in promise) == possible
    assert ("at worst" in promise) == possible


def test_what_is_tolerated_of_plain_texts_is_said() -> None:
    _, promise = sentences(facts(tolerated={"wiki": 0.2}))
    assert promise == (
        "no general task is significantly below the base; on plain texts (wiki), which show every change, "
        "20 % of what the fine-tune moved is tolerated"
    )
