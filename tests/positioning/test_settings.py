"""Presets and settings that contradict each other."""

from __future__ import annotations

import pytest

from selfpos.errors import SelfposError
from selfpos.recipe import PositioningSettings, validate


def test_the_papers_preset_is_the_paper() -> None:
    paper = PositioningSettings(preset="paper")
    assert (paper.search, paper.space, paper.steps, paper.batch_size, paper.learning_rate) == ("sgd", "spherical", 1000, 32, 5e-3)
    assert (paper.normalise, paper.balance, paper.validation, paper.angles) == ("none", "mean", 0.0, "global")
    assert (paper.temperature, paper.penalty, paper.batches, paper.sts_loss) == (0.02, 0.05, "single", "infonce")
    assert PositioningSettings(preset="paper", steps=10, penalty=0.1).model_dump() == {**paper.model_dump(), "steps": 10, "penalty": 0.1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": "spherical"}, "search linearised works in space linear, not spherical"),
        ({"search": "sgd", "batches": "single", "balance": "worst"}, "needs mixed batches"),
        ({"chunk": 8, "dropout": True}, "switch one of them off"),
        ({"search": "cma-es", "fitness": "measure", "validation": 0.0}, "needs a validation part"),
        ({"steps": 500}, "'steps' is for search sgd, and this one is linearised"),
        ({"search": "sgd", "rounds": 5}, "'rounds' is for search linearised, and this one is sgd"),
        ({"sts_loss": "infonce"}, "leaves graded pairs no grade to be measured by"),
        ({"ratios": {"sts": 0.0}}, "greater than 0"),
        ({"granularity": "layers"}, "granularity"),
    ],
)
def test_contradictions_are_one_sentence(fields: dict, message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        validate(PositioningSettings, fields, "positioning")
