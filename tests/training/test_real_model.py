from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset

from selfpos.recipe import TrainingSettings
from selfpos.storage.locate import locate_model
from selfpos.tasks import get_task
from selfpos.training import train


@pytest.mark.slow
def test_a_real_model_learns_from_real_questions(text_data: Path, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 on 32 question and answer pairs: in the third pass over them the loss is lower."""
    with gzip.open(text_data / "medquad" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = Dataset.from_list([json.loads(line) for line in lines][::102][:32])
    settings = TrainingSettings(steps=12, batch_size=8, learning_rate=5e-5, max_length=32)
    kind = get_task("retrieval")
    result = train(
        locate_model("all-MiniLM-L6-v2"),
        {"medquad": (kind, pairs)},
        tmp_path / "out",
        settings,
        seed=0,
        name="medquad",
    )
    losses = dict(result.losses)
    assert result.samples == 96 and set(losses) == {1, 10, 12}
    assert losses[12] < 0.7 * losses[1]
