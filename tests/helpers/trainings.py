"""Small trainings and the records they learn from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from selfpos import operations
from selfpos.recipe import TaskSource, TrainingSettings
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import get_task
from selfpos.training import TrainingResult, train

FAST = TrainingSettings(steps=3, batch_size=4, learning_rate=1e-3)


@cache
def words(seed: int, count: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join("".join(draw.choice(list("abcdefgh"), 4)) for _ in range(6)) for _ in range(count)]


def records(task: str, count: int = 24) -> Dataset:
    a, b, c = (words(seed, count) for seed in (1, 2, 3))
    return Dataset.from_dict(
        {
            "sts": {"sentence1": a, "sentence2": b, "score": [float(i % 5) for i in range(count)]},
            "retrieval": {"anchor": a, "positive": b},
            "reranking": {"query": a, "positive": [[x] for x in b], "negative": [[x, x + " z"] for x in c]},
            "classification": {"text": a, "label": ["abc"[i % 3] for i in range(count)]},
            "clustering": {"text": a, "label": [i % 3 for i in range(count)]},
            "pair-classification": {"sentence1": a, "sentence2": b, "label": [i % 2 for i in range(count)]},
            "bitext": {"sentence1": a, "sentence2": b},
            "summarization": {"text": a, "summary": b},
            "instruction-retrieval": {"query": a, "instruction": c, "positive": b},
        }[task]
    )


def run(
    base: Path, out: Path, *tasks: str, settings: TrainingSettings = FAST, seed: int = 5, **options: object
) -> TrainingResult:
    data = {task: (get_task(task), records(task)) for task in tasks}
    return train(base, data, out, settings, seed=seed, name=out.name, **options)  # type: ignore[arg-type]


def with_(**changes: object) -> TrainingSettings:
    return FAST.model_validate(FAST.model_dump() | changes)


def interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Have the trainer stopped by Ctrl-C in step `at`."""
    from selfpos.training.trainer import TaskTrainer

    step = TaskTrainer.training_step

    def stop(self: TaskTrainer, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step + 1 == at:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TaskTrainer, "training_step", stop)


def assert_resumes_to_the_same_bytes(
    base: Path, source: TaskSource, folder: Path, monkeypatch: pytest.MonkeyPatch, *, probe: int
) -> None:
    """A training in `folder` that Ctrl-C stops in its sixth step, and one that nothing stops, write the same
    bytes and count the same tokens.
    """
    settings = TrainingSettings(steps=8, batch_size=8, learning_rate=1e-3, checkpoint_every=2)

    def run(name: str) -> Any:
        return operations.finetune(base, source, folder / name, settings, probe=probe, say=lambda _: None)

    run("whole")
    with monkeypatch.context() as patch:
        interrupted(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            run("out")
    assert not (folder / "out").exists()
    assert run("out").resumed_from == 4
    assert content_hash(folder / "out") == content_hash(folder / "whole")
    tokens = [read_manifest(folder / name)["tokens"] for name in ("out", "whole")]
    assert tokens[0] == tokens[1]
