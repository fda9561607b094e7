"""A training in two processes, as torchrun starts them. `python -m tests.training.test_processes BASE OUT`
is what each of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfpos.console import is_first
from selfpos.recipe import TrainingSettings, ValidationSettings
from selfpos.storage.hashing import content_hash
from selfpos.storage.manifest import read_manifest
from tests.helpers.command import TWO_PROCESSES
from tests.helpers.trainings import run

SETTINGS = TrainingSettings(
    steps=6,
    batch_size=4,
    learning_rate=1e-3,
    checkpoint_every=2,
    device="cpu",
    validation=ValidationSettings(share=0.25, every=3),
)
ROOT = Path(__file__).parents[2]


@pytest.mark.nightly
def test_two_processes_train_one_model_and_go_on_where_both_were(tiny_base: Path, tmp_path: Path) -> None:
    together = [*TWO_PROCESSES, "-m", __name__]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*together, str(tiny_base), str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run(tiny_base, tmp_path / "alone", "pair-classification", settings=SETTINGS)
    manifest = read_manifest(tmp_path / "whole")
    assert (manifest["processes"], manifest["steps"], manifest["samples"]) == (2, 6, 48)
    assert [entry["step"] for entry in manifest["validation"]["history"]] == [3, 6]
    resumed = read_manifest(tmp_path / "interrupted")
    assert resumed["resumed_from"] == 4
    assert (
        content_hash(tmp_path / "interrupted")
        == content_hash(tmp_path / "whole")
        != content_hash(tmp_path / "alone")
    )
    stopped = read_manifest(tmp_path / "stopped")
    assert stopped["resumed_from"] == 5 and content_hash(tmp_path / "stopped") == content_hash(
        tmp_path / "whole"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "interrupted", "stopped", "whole"]
    assert (
        done.stderr.count("whole ━") == done.stderr.count("interrupted ━") - 1 == 1
    )  # one bar to a start, of the first process alone


def main(base: Path, out: Path) -> None:
    import torch
    from transformers import TrainerCallback

    import selfpos.processes as processes
    from selfpos.training import trainer

    torch.set_num_threads(1)
    run(base, out / "whole", "pair-classification", settings=SETTINGS)

    class Stop(TrainerCallback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_step_begin(self, args: object, state: object, control: object, **_: object) -> None:
            if state.global_step == 4 and self.name == "stopped" and not is_first():  # type: ignore[attr-defined]
                signal.raise_signal(signal.SIGINT)  # of which the first is not told
            if state.global_step == 5:  # type: ignore[attr-defined]
                raise KeyboardInterrupt

    begin = trainer.Trainer.__init__
    for name in ("interrupted", "stopped"):
        stop = Stop(name)
        trainer.Trainer.__init__ = lambda self, *args, callbacks, stop=stop, **more: begin(
            self, *args, callbacks=[*callbacks, stop], **more
        )  # type: ignore[method-assign]
        try:
            run(base, out / name, "pair-classification", settings=SETTINGS)
        except KeyboardInterrupt:
            trainer.Trainer.__init__ = begin  # type: ignore[method-assign]
        processes.wait()
        run(base, out / name, "pair-classification", settings=SETTINGS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
