"""Presets, settings that contradict each other, and settings that are gone."""

from __future__ import annotations

import pytest

from selfpos.errors import SelfposError
from selfpos.recipe import PositioningSettings, validate


def test_the_papers_preset_is_the_paper() -> None:
    paper = PositioningSettings(preset="paper")
    assert (paper.search, paper.space, paper.steps, paper.batch_size) == ("sgd", "spherical", 1000, 32)
    assert (paper.normalise, paper.validation, paper.learning_rate) == ("none", 0.0, 5e-3)
    assert (paper.temperature, paper.penalty, paper.batches) == (0.02, 0.05, "single")
    assert (paper.sts_loss, paper.sts_positive) == ("infonce", 0.8)
    changed = PositioningSettings(preset="paper", steps=10, penalty=0.1)
    assert changed.model_dump() == {**paper.model_dump(), "steps": 10, "penalty": 0.1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": "spherical"}, "search linearised works in space linear, not spherical"),
        ({"steps": 500}, "'steps' is read by search sgd only, and this search is linearised"),
        (
            {"search": "sgd", "rounds": 5},
            "'rounds' is read by search linearised only, and this search is sgd",
        ),
        ({"ratios": {"sts": 0.0}}, "greater than 0"),
        ({"granularity": "layers"}, "granularity"),
        ({"space": "round"}, "'space': Input should be 'spherical' or 'linear' .found 'round'"),
    ],
)
def test_contradictions_are_one_sentence(fields: dict, message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        validate(PositioningSettings, fields, "positioning")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"refine": "coordinate"}, "'refine' was removed in 0.2: the study found no gain; leave it out"),
        ({"space": "polar"}, "'space: polar' was removed in 0.2: the study found no gain; leave it out"),
        ({"extrapolation": 0.2}, "'extrapolation' was removed in 0.2"),
        ({"select": "loss"}, "'select' was removed in 0.2"),
        ({"validation": 0.25}, "'validation' is read by search sgd and cma-es and loss-softmax only"),
        ({"precision": "bf16"}, "takes small differences, which bf16 rounds away"),
        ({"pick": {"penalty": [0, 1]}}, "'pick' was removed in 0.2: the study found no gain; leave it out"),
        (
            {"angles": "tensor"},
            "'angles' was removed in 0.2: the values of the paper are now fixed; leave it out",
        ),
        (
            {"preset": "cma-es", "sigma": 0.1},
            "'sigma' was removed in 0.2: its value is now fixed; leave it out",
        ),
    ],
)
def test_a_setting_that_is_gone_is_one_sentence(fields: dict, message: str) -> None:
    with pytest.raises(SelfposError, match=message):
        validate(PositioningSettings, fields, "positioning")


def test_a_presets_settings_of_one_search_do_not_hold_for_another() -> None:
    """`preset: paper` asks for 1,000 steps of Adam, which another search does not read; the rest stays."""
    other = PositioningSettings(preset="paper", search="cma-es")
    assert (other.search, other.space, other.temperature) == ("cma-es", "spherical", 0.02)
    assert (other.penalty, other.validation) == (0.05, 0.0)
    with pytest.raises(SelfposError, match="'steps' is read by search sgd only, and this search is cma-es"):
        validate(PositioningSettings, {"preset": "paper", "search": "cma-es", "steps": 10}, "positioning")


def test_every_setting_says_what_group_it_belongs_to() -> None:
    groups = [field.description.partition(":")[0] for field in PositioningSettings.model_fields.values()]
    assert set(groups) == {"objective", "search", "run"}


def test_a_removed_setting_at_the_value_that_holds_now_is_accepted() -> None:
    """Run folders of 0.1 hold presets written out, `positive: false` of the paper's among them."""
    old = {"preset": "paper", "positive": False, "order": "given", "select": "loss", "extrapolation": 0.0}
    assert PositioningSettings.model_validate(old) == PositioningSettings(preset="paper")
