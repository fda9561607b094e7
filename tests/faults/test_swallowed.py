"""Interrupts that a library swallows, or makes another error of."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from selfpos.signals import repeated_interrupts
from tests.helpers.command import own_process, starting


def swallow() -> None:
    """What a library does that prints what its callback raises, and goes on."""
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_an_interrupt_that_was_swallowed_comes_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), repeated_interrupts():
        swallow()
        for _ in range(1000):
            time.sleep(0.01)
    assert time.monotonic() - started < 5
    assert capsys.readouterr().err == ""


def test_it_comes_at_the_end_of_a_short_block_and_once() -> None:
    with pytest.raises(KeyboardInterrupt), repeated_interrupts():
        swallow()
    time.sleep(0.2)
    with repeated_interrupts():
        pass


def test_what_a_destructor_swallows_comes_once_more() -> None:
    class Interrupted:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), repeated_interrupts():
        Interrupted()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_that_a_library_makes_another_error_of_is_still_one(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As pydantic's schemas, and whatever has `__set_name__`."""
    struck = f"""
        def struck(**_):
            try:
                signal.raise_signal({int(number)})
            except BaseException:
                raise RuntimeError("a schema") from None
    """
    done = own_process(**starting(tmp_path, dedent(struck)))
    by = " by SIGTERM" if number == signal.SIGTERM else ""
    assert done.stderr == f"selfpos: stopped{by}; it ended with a schema\n"
    assert done.returncode == 128 + number


def test_other_errors_are_shown_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    with repeated_interrupts():
        sys.excepthook(ValueError, ValueError("of a callback"), None)
    assert "of a callback" in capsys.readouterr().err
