"""Hard negatives, mined with a real model by the library, against a search by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from selfpos.errors import SelfposError
from selfpos.recipe import MiningSettings
from selfpos.tasks import get_task
from selfpos.training.negatives import mine
from tests.helpers.trainings import records, words

RETRIEVAL = get_task("retrieval")
NEAR = MiningSettings(count=2, range_min=1, range_max=20, relative_margin=None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "selfpos"


def test_negatives_are_the_nearest_answers_of_others(tiny_base: Path) -> None:
    from sentence_transformers import SentenceTransformer

    pairs = records("retrieval")
    found = mine(pairs, RETRIEVAL, NEAR, tiny_base, {"query": "q ", "document": "d "}, 0)
    assert found.column_names == ["anchor", "positive", "negative", "negative_2"]
    model = SentenceTransformer(str(tiny_base), device="cpu")
    anchors, answers = pairs["anchor"][:], pairs["positive"][:]
    similar = model.encode(anchors, prompt="q ") @ model.encode(answers, prompt="d ").T
    for row, record in enumerate(found):
        nearest = [place for place in np.argsort(-similar[row]) if place != row]
        assert [record["negative"], record["negative_2"]] == [
            answers[place] for place in nearest[1:3]
        ]  # the nearest is skipped
    assert RETRIEVAL.prepare(found, 0).column_names == found.column_names


def test_the_same_is_mined_once(tiny_base: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = NEAR.model_copy(update={"sampling": "random"})
    first = mine(records("retrieval"), RETRIEVAL, drawn, tiny_base, "", 0).to_list()
    (file,) = cache.iterdir()
    file.unlink()
    assert mine(records("retrieval"), RETRIEVAL, drawn, tiny_base, "", 0).to_list() == first
    monkeypatch.setattr("selfpos.training.negatives._mine", lambda *_: pytest.fail("it mined again"))
    assert mine(records("retrieval"), RETRIEVAL, drawn, tiny_base, "", 0).to_list() == first
    with pytest.raises(pytest.fail.Exception):
        mine(records("retrieval"), RETRIEVAL, drawn, tiny_base, "", 1)


def test_pairs_without_enough_negatives_are_left_out_and_told(
    tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = NEAR.model_copy(update={"relative_margin": 0.0})
    found = mine(records("retrieval"), RETRIEVAL, strict, tiny_base, "", 0)
    assert 0 < len(found) < 24
    assert f"{24 - len(found)} of 24 pairs have fewer than" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("task", "data", "settings", "message"),
    [
        ("reranking", None, {}, "task type reranking, whose data has negatives already"),
        ("sts", None, {}, "task type sts, whose data has no question and answer"),
        (
            "retrieval",
            {"anchor": words(1, 5), "positive": words(2, 5)},
            {"range_min": 4},
            "5 different answers leave no 2 beyond the nearest 4",
        ),
        ("retrieval", None, {"max_score": -1.0}, "no hard negatives for 24 pairs"),
    ],
)
def test_what_cannot_be_mined_is_refused(
    task: str, data: dict | None, settings: dict, message: str, tiny_base: Path, cache: Path
) -> None:
    given = Dataset.from_dict(data) if data else records(task)
    with pytest.raises(SelfposError, match=message):
        mine(given, get_task(task), NEAR.model_copy(update=settings), tiny_base, "", 0)
    assert not cache.exists() or not list(cache.iterdir())
