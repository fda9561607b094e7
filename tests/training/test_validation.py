"""A training that is measured as it learns: the best state is kept, patience ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from selfpos.errors import SelfposError
from selfpos.recipe import LoraSettings, ValidationSettings
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.tasks import TASKS, get_task
from selfpos.training import train, validation
from tests.helpers.threads import one_thread
from tests.helpers.trainings import interrupted, records, run, with_

__all__ = ["one_thread"]

VALIDATED = ValidationSettings(share=0.25, every=2)


def scripted(monkeypatch: pytest.MonkeyPatch, *scores: float) -> list[int]:
    """Have the measurements come out as `scores`, one after the other (the last again and again); returns
    where calls are counted."""
    calls: list[int] = []

    def score(measure: object, model: object) -> float:
        calls.append(1)
        return scores[min(len(calls), len(scores)) - 1]

    monkeypatch.setattr(validation, "score", score)
    return calls


@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_type_is_measured_by_its_own_measure(task: str, tiny_base: Path, tmp_path: Path) -> None:
    result = run(tiny_base, tmp_path / "out", task, settings=with_(validation=VALIDATED.model_dump()))
    manifest = read_manifest(tmp_path / "out")
    assert result.steps == 3 and [entry["step"] for entry in manifest["validation"]["history"]] == [2, 3]
    assert all(-1 <= entry["scores"][task] <= 1 for entry in manifest["validation"]["history"])
    triples = 1 + (task == "reranking")  # to a record
    assert (
        manifest["tasks"][task]["records"] == 18 * triples
        and manifest["tasks"][task]["validation"]["records"] == 6 * triples
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_measuring_does_not_change_what_is_learnt(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, data = get_task("retrieval"), records("retrieval")
    measured = with_(steps=6, validation={"split": "dev", "every": 2})
    train(tiny_base, {"r": (kind, data)}, tmp_path / "plain", with_(steps=6), seed=0, name="x")
    original, rising = validation.score, iter(range(9))
    monkeypatch.setattr(validation, "score", lambda *given: original(*given) * 0 + next(rising))
    train(
        tiny_base,
        {"r": (kind, data)},
        tmp_path / "measured",
        measured,
        seed=0,
        name="x",
        validation={"r": data.select(range(8))},
    )
    assert content_hash(tmp_path / "plain") == content_hash(tmp_path / "measured")


@pytest.mark.parametrize("lora", [False, True])
def test_the_best_state_is_kept(
    lora: bool, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"lora": LoraSettings(rank=2).model_dump()} if lora else {}
    common = {"steps": 8, "warmup": 0.0, "validation": VALIDATED.model_dump(), **more}
    scripted(monkeypatch, 0.1, 0.9, 0.2, 0.3)
    run(tiny_base, tmp_path / "best", "sts", settings=with_(**common))
    assert read_manifest(tmp_path / "best")["validation"]["best_step"] == 4
    # the state after 4 of 8 steps is the checkpoint of a training that was stopped there
    scripted(monkeypatch, 0.1, 0.2, 0.3, 0.4)
    with monkeypatch.context() as patch:
        interrupted(patch, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_base, tmp_path / "stopped", "sts", settings=with_(**common))
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    there = load_file(tmp_path / "stopped.checkpoints" / "step-4" / name)
    best = load_file(tmp_path / "best" / name)
    assert best and all(torch.equal(best[key], there[key]) for key in best)


def test_patience_ends_a_training_that_gets_no_better(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_(steps=20, validation=VALIDATED.model_dump() | {"patience": 2})
    scripted(monkeypatch, 0.5, 0.6, 0.4, 0.5, 0.9)
    assert run(tiny_base, tmp_path / "out", "sts", settings=settings).steps == 8
    found = read_manifest(tmp_path / "out")["validation"]
    assert (found["best_step"], found["stopped_early"], len(found["history"])) == (4, True, 4)


@pytest.mark.slow
def test_a_measured_training_goes_on_to_the_same_bytes(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best state, at step 4, is kept through an interruption before it, after it, and after a later
    checkpoint."""
    from selfpos.training.trainer import TaskTrainer

    settings = with_(steps=12, validation=VALIDATED.model_dump() | {"patience": 3}, checkpoint_every=3)
    by_step = {2: 0.1, 4: 0.8, 6: 0.7, 8: 0.6, 10: 0.5, 12: 0.9}
    now = []
    step = TaskTrainer.training_step
    monkeypatch.setattr(
        TaskTrainer,
        "training_step",
        lambda self, *a, **k: (now.append(self.state.global_step + 1), step(self, *a, **k))[1],
    )
    monkeypatch.setattr(validation, "score", lambda *_: by_step[now[-1]])
    run(tiny_base, tmp_path / "whole", "sts", settings=settings)
    whole = read_manifest(tmp_path / "whole")["validation"]
    assert whole["best_step"] == 4
    for stop, resumed in {4: 3, 7: 6, 9: 6}.items():
        out = tmp_path / str(stop)
        with monkeypatch.context() as patch:
            interrupted(patch, at=stop)
            with pytest.raises(KeyboardInterrupt):
                run(tiny_base, out, "sts", settings=settings)
        result = run(tiny_base, out, "sts", settings=settings)
        assert result.resumed_from == resumed and result.steps == 10
        assert content_hash(out) == content_hash(tmp_path / "whole")
        assert read_manifest(out)["validation"] == whole


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either a share"),
        ({"share": 0.1, "split": "dev"}, "either a share"),
        ({"share": 0.9}, "less than or equal to 0.5"),
    ],
)
def test_validation_comes_from_one_place(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_(validation=given)


def test_validation_records_that_cannot_be_measured_are_refused_before_the_training(
    tiny_base: Path, tmp_path: Path
) -> None:
    few = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(
        SelfposError,
        match=r"the 2 validation records of task classification: .*at least 2 labels with 2 texts each",
    ):
        run(
            tiny_base,
            tmp_path / "out",
            "classification",
            settings=with_(validation={"split": "dev"}),
            validation={"classification": few},
        )
    with pytest.raises(SelfposError, match="task sts comes without records of the split 'dev'"):
        run(tiny_base, tmp_path / "out", "sts", settings=with_(validation={"split": "dev"}))
    assert list(tmp_path.iterdir()) == []


# Trackers and devices
