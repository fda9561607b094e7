"""Small tasks of every kind, and a corpus of made-up functions."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from selfpos.data.corpus import Corpus
from selfpos.data.corpus_extraction import HELD_OUT, Entry
from selfpos.storage.locate import cache_folder
from tests.helpers.own_tasks import sentence

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask


@pytest.fixture
def sts_task() -> Callable[..., AbsTask]:
    """Make an STS task of 40 random pairs, under a name, with a data revision."""
    from datasets import Dataset, DatasetDict

    from selfpos.evaluation.tasks import new_task

    def make(name: str = "selfpos-TestSTS", revision: str = "one", seed: int = 0) -> AbsTask:
        rng = random.Random(seed)
        rows = [
            {"sentence1": sentence(rng), "sentence2": sentence(rng), "score": rng.uniform(0, 5)}
            for _ in range(40)
        ]
        return new_task(
            "sts",
            name,
            "Random pairs.",
            lambda: DatasetDict(test=Dataset.from_list(rows)),
            revision=revision,
            source="selfpos/test",
        )

    return make


@pytest.fixture
def failing_task() -> AbsTask:
    from selfpos.evaluation.tasks import new_task

    def load() -> dict[str, object]:
        raise ValueError("the data is\nnot there")

    return new_task("sts", "selfpos-Failing", "Fails.", load, revision="one", source="selfpos/test")


@pytest.fixture(scope="session")
def made_up_corpus() -> Corpus:
    """30 functions in each of 5 subpackages with train and test parts, and in each that is held out; each in
    a chain of See Also links.
    """
    rng = random.Random(0)
    groups = {f"alpha.{letter}": ["train"] * 18 + ["test"] * 12 for letter in "abcde"} | {
        name: ["held-out"] * 30 for name in HELD_OUT
    }
    entries = []
    for subpackage, splits in groups.items():
        topic = sentence(rng, 3)
        for number, split in enumerate(splits):
            name = f"{subpackage}.f{number:02}"
            links = (f"{subpackage}.f{number - 1:02}",) if number else ()
            entries.append(
                Entry(
                    name,
                    "function",
                    subpackage,
                    split,
                    f"{topic} {sentence(rng, 4)}",
                    f"{topic} {sentence(rng, 30)}",
                    links,
                )
            )
    return Corpus(tuple(sorted(entries, key=lambda entry: entry.name)), {"python": "test"})


@pytest.fixture(autouse=True)
def own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that another test, or the user, learnt of the data; the corpus, which takes long to read, is
    that of all tests.
    """
    folder = cache_folder()
    monkeypatch.setattr("selfpos.data.corpus.cache_folder", lambda: folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _mteb() -> None:
    """Import mteb at set-up: it takes seconds of CPU, which the first test would be charged for."""
    import mteb  # noqa: F401
