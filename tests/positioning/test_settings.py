"""Presets and settings that contradict each other."""

from __future__ import annotations

import pytest

from selfpos.errors import SelfposError
from selfpos.recipe import PositioningSettings, validate


def test_the_papers_preset_is_the_paper() -> None:
    paper = PositioningSettings(preset="paper")
    assert (paper.search, paper.space, paper.steps, paper.batch_size, paper.learning_rate) == (
        "sgd",
        "spherical",
        1000,
        32,
        5e-3,
    )
    assert (paper.normalise, paper.balance, paper.validation, paper.angles) == ("none", "mean", 0.0, "global")
    assert (paper.temperature, paper.penalty, paper.batches, paper.sts_loss) == (
        0.02,
        0.05,
        "single",
        "infonce",
    )
    assert PositioningSettings(preset="paper", steps=10, penalty=0.1).model_dump() == {
        **paper.model_dump(),
        "steps": 10,
        "penalty": 0.1,
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": "spherical"}, "search linearised works in space linear, not spherical"),
        ({"search": "sgd", "batches": "single", "balance": "worst"}, "needs mixed batches"),
        ({"chunk": 8, "dropout": True}, "switch one of them off"),
        ({"search": "cma-es", "fitness": "measure", "validation": 0.0}, "needs a validation part"),
        ({"steps": 500}, "'steps' is for search sgd, and this one is linearised"),
        ({"search": "sgd", "rounds": 5}, "'rounds' is for search linearised, and this one is sgd"),
        ({"pick": {"granularity": ["model", "layers"]}}, "pick, granularity: Input should be 'model'"),
        ({"pick": {"shrinkage": []}}, "at least 1 item"),
        ({"pick": {"shrinkage": [-1]}}, "pick, shrinkage: Input should be greater than or equal to 0"),
        ({"pick": {"rounds": [1, 2]}}, "pick"),
        ({"pick": 0.1}, "pick.*valid dictionary"),
        ({"pick": [{"granularity": ["model"]}]}, "pick.*valid dictionary"),
        (
            {"preset": "lm-cocktail", "validation": 0.5, "pick": {"penalty": [0, 1]}},
            "loss-softmax looks at nothing that could be picked",
        ),
        ({"pick": {"penalty": [0, 0.1]}, "penalty": 0.1}, "'penalty' is both given and to be picked"),
        ({"pick": {"penalty": [0, 0.1]}, "validation": 0}, "pick chooses on the validation part"),
        ({"ratios": {"sts": 0.0}}, "greater than 0"),
        ({"granularity": "layers"}, "granularity"),
    ],
)
def test_contradictions_are_one_sentence(fields: dict, message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        validate(PositioningSettings, fields, "positioning")


def test_what_a_preset_says_of_its_own_search_does_not_go_for_another() -> None:
    """`preset: paper` asks for 1,000 steps of Adam, of which another search knows nothing; the rest of it stays."""
    other = PositioningSettings(preset="paper", search="cma-es")
    assert (other.search, other.space, other.temperature, other.penalty, other.validation) == (
        "cma-es",
        "spherical",
        0.02,
        0.05,
        0.0,
    )
    with pytest.raises(SelfposError, match="'steps' is for search sgd, and this one is cma-es"):
        validate(PositioningSettings, {"preset": "paper", "search": "cma-es", "steps": 10}, "positioning")


def test_candidates_are_the_combinations_in_the_order_given() -> None:
    settings = PositioningSettings(pick={"granularity": ["model", "layer"], "penalty": [0.1, 0]}, rounds=2)
    labels, made = zip(*settings.candidates(), strict=True)
    assert labels == tuple({"granularity": g, "penalty": p} for g in ("model", "layer") for p in (0.1, 0))
    assert made[1] == PositioningSettings(rounds=2) and made[2] == PositioningSettings(
        rounds=2, granularity="layer", penalty=0.1
    )
    shrunk = PositioningSettings(pick={"shrinkage": [1, 10], "granularity": ["model", "layer"]})
    assert [label for label, _ in shrunk.candidates()] == [
        {"shrinkage": 1, "granularity": "model"},
        {"shrinkage": 1, "granularity": "layer"},
        {"shrinkage": 10, "granularity": "layer"},
    ]
    assert [label for label, _ in PositioningSettings(pick={"penalty": [0, 0.0, 0.1]}).candidates()] == [
        {"penalty": 0},
        {"penalty": 0.1},
    ]
    assert PositioningSettings().candidates() == [({}, PositioningSettings())]
