"""SIGTERM and SIGHUP do what Ctrl-C does: the newest step is kept, the rest cleaned up, and it is said."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from selfpos.recipe import TrainingSettings
from selfpos.signals import ending_signals
from tests.helpers.command import ROOT, own_process, starting

STATUS = {signal.SIGTERM: 143, signal.SIGHUP: 129}
MERGE = "from selfpos.cli import main; from tests.helpers.slow_ties import pause; pause(); main()"


@pytest.fixture(autouse=True)
def hangups_arrive() -> Iterator[None]:
    """Under nohup they are ignored, by children too, as selfpos leaves it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_lost_terminal_with_closed_outputs_ends_the_work_too() -> None:
    code = (
        "import os, signal; from selfpos.signals import ending_signals\n"
        "os.close(1); os.close(2)\n"
        "try:\n with ending_signals(): os.kill(os.getpid(), signal.SIGHUP)\n"
        "except KeyboardInterrupt: os._exit(42)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 42


@pytest.mark.parametrize("number", STATUS)
def test_an_ending_signal_is_said_and_has_its_status(tmp_path: Path, number: signal.Signals) -> None:
    struck = f"def struck(**_):\n    signal.raise_signal({int(number)})\n"
    done = own_process(**starting(tmp_path, struck))
    assert (done.returncode, done.stderr) == (STATUS[number], f"selfpos: stopped by {number.name}\n")


def test_one_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\ndef struck(**_):\n    signal.raise_signal(1)\n"
    done = own_process(**starting(tmp_path, before))
    assert (done.returncode, done.stderr) == (0, "")


def test_sigterm_ends_where_ctrl_c_is_ignored(tmp_path: Path) -> None:
    before = "signal.signal(signal.SIGINT, signal.SIG_IGN)\ndef struck(**_):\n    signal.raise_signal(15)\n"
    assert own_process(**starting(tmp_path, before)).returncode == 143


@pytest.mark.parametrize("number", STATUS)
def test_a_merge_keeps_what_is_finished(
    tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    words = ["merge", "--base", tiny_base, "--method", "ties", "--out", out, "--threads", "1"]
    words += [word for source in tiny_specialists for word in ("--vectors", source)]
    process = subprocess.Popen(
        [sys.executable, "-c", MERGE, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == b"now\n"
    process.send_signal(number)
    process.send_signal(number)  # as `timeout` and shells do
    _, errors = process.communicate(timeout=20)
    assert process.returncode == STATUS[number], errors
    assert f"selfpos: stopped by {number.name}; what is finished is kept" in errors.decode()
    assert not out.exists() and list(tmp_path.glob(".out.tmp-*")) and not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize(
    "struck",
    [
        """
        import atexit
        def struck(**_):
            atexit.register(lambda: signal.raise_signal(signal.SIGHUP))
            signal.raise_signal(signal.SIGHUP)
        """,
        """
        from selfpos.errors import SelfposError
        class Struck(SelfposError):
            def __str__(self):
                signal.raise_signal(signal.SIGHUP)
                return "refused"
        def struck(**_):
            raise Struck("x")
        """,
    ],
    ids=["a second one at the end", "while a refusal is written"],
)
def test_whenever_one_comes_the_work_ends_in_one_sentence_with_its_status(
    struck: str, tmp_path: Path
) -> None:
    done = own_process(**starting(tmp_path, dedent(struck)))
    assert (done.returncode, done.stderr) == (129, "selfpos: stopped by SIGHUP\n")


def test_a_closed_terminal_is_no_failed_write(tmp_path: Path) -> None:
    # in one write: the terminal is closed as soon as the word is read
    struck = "def struck(**_):\n    import os, time\n    os.write(1, b'ready')\n    time.sleep(60)\n"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "selfpos"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | starting(tmp_path, struck),
        start_new_session=True,
    )
    os.close(theirs)
    assert b"ready" in os.read(ours, 100)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=20) == 129


def test_a_training_keeps_the_step_it_comes_in(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfpos.training.trainer import Trainer
    from tests.helpers.trainings import run

    step = Trainer.training_step

    def struck(self: Trainer, *args: object, **kwargs: object) -> object:
        if self.state.global_step + 1 == 2:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return step(self, *args, **kwargs)

    before = {number: signal.getsignal(number) for number in STATUS}
    monkeypatch.setattr(Trainer, "training_step", struck)
    settings = TrainingSettings(steps=3, batch_size=4)
    with (
        ending_signals() as received,
        pytest.raises(KeyboardInterrupt, match="step 2 of the training is kept"),
    ):
        run(tiny_base, tmp_path / "out", "sts", settings=settings)
    assert received[0] == signal.SIGTERM
    assert {number: signal.getsignal(number) for number in STATUS} == before
