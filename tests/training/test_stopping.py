"""A training that is stopped, by Ctrl-C, a kill or a loss that is not finite, and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfpos.errors import OperationError, SelfposError
from selfpos.recipe import LoraSettings, MixtureSettings, TrainingSettings, ValidationSettings
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from selfpos.training.checkpoints import Checkpoints
from tests.helpers.threads import one_thread
from tests.helpers.trainings import interrupted, run

__all__ = ["one_thread"]


def run_until(
    monkeypatch: pytest.MonkeyPatch, at: int, base: Path, out: Path, *tasks: str, **options: object
) -> None:
    """A training that Ctrl-C ends in step `at`."""
    with monkeypatch.context() as patch:
        interrupted(patch, at)
        with pytest.raises(KeyboardInterrupt):
            run(base, out, *tasks, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tasks", "options", "stop", "resumed"),
    [
        (("sts",), {}, 6, 4),  # in the middle of the first epoch of 6 steps
        (("retrieval",), {}, 8, 6),  # at the seam of two epochs
        (("classification", "retrieval", "pair-classification"), {}, 12, 10),
        (
            ("sts", "retrieval"),
            {"mixture": "resampled", "ratio": {"sts": 4}},
            11,
            10,
        ),  # sts a second time, in the first epoch of 11
        (("sts", "retrieval"), {"mixture": "resampled", "ratio": {"sts": 4}}, 13, 12),  # and in the second
        (("classification", "retrieval", "sts"), {"surgery": "pcgrad"}, 10, 8),
        (("retrieval",), {"lora": True}, 7, 6),  # in the second epoch
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_bytes(
    tasks: tuple[str, ...],
    options: dict,
    stop: int,
    resumed: int,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = TrainingSettings(
        steps=14,
        batch_size=4,
        learning_rate=1e-3,
        checkpoint_every=2,
        lora=LoraSettings(rank=2) if options.get("lora") else None,
    )
    mixture = MixtureSettings(**{name: value for name, value in options.items() if name != "lora"})
    whole = run(
        tiny_base,
        tmp_path / "whole",
        *tasks,
        settings=settings.model_copy(update={"checkpoint_every": 100}),
        mixture=mixture,
    )
    out = tmp_path / "out"
    run_until(monkeypatch, stop, tiny_base, out, *tasks, settings=settings, mixture=mixture)
    checkpoints = tmp_path / "out.checkpoints"
    assert not out.exists()
    assert sorted(path.name for path in checkpoints.iterdir()) == [f"step-{resumed}", "training.json"]
    assert not list(checkpoints.rglob("training_args.bin"))
    (checkpoints / "checkpoint-99").mkdir()  # as a kill in the middle of saving leaves it
    result = run(tiny_base, out, *tasks, settings=settings, mixture=mixture)
    assert result.resumed_from == resumed and result.steps == 14
    assert content_hash(out) == content_hash(tmp_path / "whole")
    assert (result.tokens, result.samples) == (whole.tokens, whole.samples)
    if resumed <= 10:  # from a later step on, the last entry is the mean of fewer
        assert result.losses[-1] == pytest.approx(whole.losses[-1])
    assert not checkpoints.exists()


def test_a_kill_while_checkpoints_are_removed_leaves_no_half_of_one(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(steps=4, batch_size=4, checkpoint_every=3)
    out = tmp_path / "out"
    remove = Checkpoints.remove

    def killed(folder: Path) -> None:
        (folder / "1_Pooling" / "config.json").unlink()
        raise OSError("killed")

    def removed(checkpoints: Checkpoints) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", killed)
            remove(checkpoints)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "remove", removed)
        with pytest.raises(OperationError, match="killed"):
            run(tiny_base, out, "sts", settings=settings)
    whole = content_hash(out)
    shutil.rmtree(out)  # as a run does with what it has not marked as finished
    run(tiny_base, out, "sts", settings=settings)
    assert content_hash(out) == whole


def signalled(monkeypatch: pytest.MonkeyPatch, at: int, times: int = 1) -> None:
    """Have Ctrl-C come while the trainer is in step `at`."""
    from selfpos.training.trainer import Trainer

    step = Trainer.training_step

    def struck(self: Trainer, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step + 1 == at:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", struck)


@pytest.mark.parametrize(
    "options", [{}, {"lora": LoraSettings(rank=2)}, {"validation": ValidationSettings(share=0.25, every=2)}]
)
def test_ctrl_c_keeps_the_step_it_comes_in(
    options: dict, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(steps=6, batch_size=4, learning_rate=1e-3, **options)
    run(tiny_base, tmp_path / "whole", "sts", settings=settings)
    with monkeypatch.context() as patch:
        signalled(patch, at=3)
        with pytest.raises(
            KeyboardInterrupt,
            match="step 3 of the training is kept, and the same command continues from there",
        ):
            run(tiny_base, tmp_path / "out", "sts", settings=settings)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert run(tiny_base, tmp_path / "out", "sts", settings=settings).resumed_from == 3
    assert content_hash(tmp_path / "out") == content_hash(tmp_path / "whole")


def test_ctrl_c_in_the_last_step_leaves_the_finished_model(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled(monkeypatch, at=3)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_base, tmp_path / "out", "sts")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (
        tmp_path / "out" / "selfpos.json"
    ).is_file()


def test_a_second_ctrl_c_stops_at_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signalled(monkeypatch, at=2, times=2)
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(tiny_base, tmp_path / "out", "sts")
    assert not str(stopped.value) and list(tmp_path.iterdir()) == []


def test_steps_that_take_long_are_kept_by_time(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfpos.training.trainer.CHECKPOINT_SECONDS", 0.0)
    run_until(monkeypatch, 3, tiny_base, tmp_path / "out", "sts")
    assert [path.name for path in tmp_path.glob("out.checkpoints/step-*")] == ["step-2"]


def test_checkpoints_of_another_training_are_not_gone_on_from(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(steps=6, batch_size=4, checkpoint_every=2)
    run_until(monkeypatch, 4, tiny_base, tmp_path / "out", "sts", settings=settings)
    with pytest.raises(
        SelfposError,
        match=r"out.checkpoints holds checkpoints of another training, .* in seed \(there 5, now 6\)",
    ):
        run(tiny_base, tmp_path / "out", "sts", settings=settings, seed=6)
    assert run(tiny_base, tmp_path / "out", "sts", settings=settings).resumed_from == 2


def test_an_interruption_before_any_checkpoint_leaves_nothing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, at=2)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_base, tmp_path / "out", "sts")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfpos.training.trainer import Trainer

    compute = Trainer.compute_loss
    monkeypatch.setattr(
        Trainer,
        "compute_loss",
        lambda self, *a, **k: compute(self, *a, **k) * (float("nan") if self.state.global_step == 4 else 1),
    )
    with pytest.raises(OperationError) as error:
        run(
            tiny_base,
            tmp_path / "out",
            "sts",
            settings=TrainingSettings(steps=6, batch_size=4, checkpoint_every=2),
        )
    kept = tmp_path / "out.checkpoints" / "step-4"
    assert (
        str(error.value)
        == f"training out stopped, the loss is nan at step 5; its last good checkpoint is {kept}; "
        "lower the learning rate"
    )
    assert all(torch.isfinite(weight).all() for weight in load_file(kept / "model.safetensors").values())
    assert not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_a_killed_training_goes_on_to_the_same_bytes(tiny_base: Path, tmp_path: Path) -> None:
    """kill -9 from outside, wherever it strikes."""
    settings = TrainingSettings(steps=80, batch_size=4, learning_rate=1e-3, checkpoint_every=5)
    run(tiny_base, tmp_path / "whole", "sts", settings=settings.model_copy(update={"checkpoint_every": 100}))
    script = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from tests.helpers.trainings import run; from selfpos.recipe import TrainingSettings\n"
        "settings = TrainingSettings.model_validate_json(sys.argv[3])\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2]), 'sts', settings=settings)\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        str(tiny_base),
        str(tmp_path / "out"),
        settings.model_dump_json(),
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300  # importing the libraries takes a loaded machine minutes
    while not list(tmp_path.glob("out.checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    result = run(tiny_base, tmp_path / "out", "sts", settings=settings)
    assert result.resumed_from and result.resumed_from % 5 == 0
    assert content_hash(tmp_path / "out") == content_hash(tmp_path / "whole")


def test_what_a_training_took_counts_from_its_first_start(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(steps=6, batch_size=4, checkpoint_every=2)
    run_until(monkeypatch, 6, tiny_base, tmp_path / "out", "retrieval", settings=settings)
    spent = json.loads((tmp_path / "out.checkpoints" / "step-4" / "spent.json").read_text(encoding="utf-8"))
    result = run(tiny_base, tmp_path / "out", "retrieval", settings=settings)
    assert result.seconds > spent["seconds"] > 0
    assert read_manifest(tmp_path / "out")["seconds"] == result.seconds
    assert (
        result.tokens == read_manifest(tmp_path / "out")["tokens"] > 6 * 4 * 2 * 2
    )  # two texts a record, of more than two tokens
