"""Interrupts that a library's callback swallows."""

from __future__ import annotations

import sys
import time

import pytest

from selfpos.signals import interrupts_in_callbacks


def swallow() -> None:
    """What a library does that prints what its callback raises, and goes on."""
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_an_interrupt_that_was_swallowed_comes_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupts_in_callbacks():
        swallow()
        for _ in range(1000):
            time.sleep(0.01)
    assert time.monotonic() - started < 5
    assert capsys.readouterr().err == ""


def test_it_comes_at_the_end_of_a_short_block_and_once() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts_in_callbacks():
        swallow()
    time.sleep(0.2)
    with interrupts_in_callbacks():
        pass


def test_other_errors_are_shown_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    with interrupts_in_callbacks():
        sys.excepthook(ValueError, ValueError("of a callback"), None)
    assert "of a callback" in capsys.readouterr().err
