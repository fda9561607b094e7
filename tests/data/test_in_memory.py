"""Data sets in memory, as people make them with `datasets`."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, Value

import selfpos
from selfpos.data.sources import load_task
from selfpos.operations import finetune, probe_of
from selfpos.recipe import TaskSource, TrainingSettings


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "selfpos" / "datasets"


def test_a_data_set_is_read_as_its_file_would_be(cache: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["cards", "loans"])})
    records = Dataset.from_dict({"text": ["my card", "a loan", "new card"], "label": [0, 1, 0]}, features)
    sources = [TaskSource(type="classification", data=data) for data in (records, records.select([0, 1, 2]))]
    assert sources[0] == sources[1]  # the same records are one file
    assert TaskSource(type="classification", data=[records, Path("x.csv")]).data == [sources[0].data, "x.csv"]
    assert [file.suffix for file in cache.iterdir()] == [".parquet"]
    loaded = load_task(sources[0], seed=0).dataset
    assert loaded["text"][:] == ["my card", "a loan", "new card"]
    assert loaded["label"][:] == ["cards", "loans", "cards"]


def test_what_is_no_data_set_of_one_split_is_refused_with_the_way_out() -> None:
    records = Dataset.from_dict({"text": ["a"], "label": ["b"]})
    with pytest.raises(ValueError, match=r"data\['test'\]"):
        TaskSource(type="classification", data=DatasetDict(test=records))
    with pytest.raises(ValueError, match="stream"):
        TaskSource(type="classification", data=IterableDataset.from_generator(lambda: iter([{"text": "a"}])))


def test_a_probe_is_drawn_again_from_a_data_set_in_memory(tiny_base: Path, tmp_path: Path) -> None:
    words = [f"word {number}" for number in range(40)]
    records = Dataset.from_dict({"anchor": words, "positive": [f"about {word}" for word in words]})
    settings = TrainingSettings(steps=1, batch_size=8, max_length=16)
    source = selfpos.TaskSource(type="retrieval", data=records)
    finetune(tiny_base, source, tmp_path / "out", settings, probe=16, say=lambda text: None)
    del records, source
    assert len(probe_of([tmp_path / "out"])["out"].records) == 16
