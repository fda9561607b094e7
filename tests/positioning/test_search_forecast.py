"""What a dry run says of a search: the texts, how often they are embedded, the time and the memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from selfpos.errors import SelfposError
from selfpos.positioning import forecast
from selfpos.positioning.position import position
from selfpos.recipe import PositioningSettings
from tests.helpers.stand_ins import graded, pairs


@pytest.mark.parametrize("granularity", ["model", "layer", pytest.param("tensor", marks=pytest.mark.slow)])
def test_a_search_embeds_its_texts_as_often_as_was_said(
    tiny_base: Path, tiny_specialists: list[Path], granularity: str
) -> None:
    settings = PositioningSettings(granularity=granularity, separate=False)
    probe = {"pairs": pairs(), "graded": graded()}
    expected = forecast.forecast(tiny_base, tiny_specialists, probe, settings, seed=0, device="cpu")
    result = position(tiny_base, tiny_specialists, probe, settings, seed=0, device="cpu")
    assert expected.texts * expected.fewest <= result.texts <= expected.texts * expected.most
    assert expected.seconds > 0
    assert expected.memory > 4 * expected.texts


def test_a_search_that_memory_refuses_is_refused_before(
    tiny_base: Path, tiny_specialists: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.positioning.linearisation.MEMORY", 1000)
    with pytest.raises(SelfposError, match=r"GiB of derivatives \(3 directions"):
        forecast.forecast(
            tiny_base, tiny_specialists, {"pairs": pairs()}, PositioningSettings(), seed=0, device="cpu"
        )


def test_memory_is_of_the_model_the_points_that_are_kept_and_their_derivatives(
    tiny_base: Path, tiny_specialists: list[Path]
) -> None:
    settings = PositioningSettings()
    said = forecast.forecast(tiny_base, tiny_specialists, {"pairs": pairs()}, settings, seed=0, device="cpu")
    weights = sum(parameter.numel() for parameter in SentenceTransformer(str(tiny_base)).parameters())
    embeddings = said.texts * 16  # numbers at one point, or of the derivatives by one of three coefficients
    assert said.memory == 4 * (weights + (3 + forecast.KEPT) * embeddings) + forecast.BATCHES


def test_rivals_cost_a_point_each_and_rounds_their_directions() -> None:
    alone = PositioningSettings(rounds=1, compare=False)
    assert forecast.points(5, 5, alone) == (9, 11)
    assert forecast.points(5, 5, PositioningSettings(rounds=1)) == (14, 16)
    assert forecast.points(5, 5, PositioningSettings(rounds=2)) == (14, 22)
