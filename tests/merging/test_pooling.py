"""How a plain model is pooled where a method embeds texts by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfpos.errors import SelfposError
from selfpos.merging import plan
from selfpos.recipe import PositioningSettings
from selfpos.searched_merge import plan_search
from tests.helpers.families import plain_bert
from tests.helpers.models import make_specialist


def test_a_search_embeds_as_the_output_is_pooled(tmp_path: Path) -> None:
    """sentence-transformers pools a plain model by its mean."""
    base = plain_bert(tmp_path / "base")
    one = make_specialist(base, tmp_path / "one", seed=1)
    refused = pytest.raises(SelfposError, match=r"pools by mean and not cls; write it with its modules first")
    with refused:
        plan_search(str(base), [one], PositioningSettings(), tmp_path / "out", pooling="cls")
    with refused:
        plan(base, [one], "fisher", tmp_path / "out", pooling="cls")
    plan_search(str(base), [one], PositioningSettings(), tmp_path / "out", pooling="mean")
    plan(base, [one], "fisher", tmp_path / "out", pooling="mean")
