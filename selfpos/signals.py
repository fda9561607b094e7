"""The signals of schedulers and closed terminals, answered as Ctrl-C is."""

from __future__ import annotations

import _thread
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
ENDING_SIGNALS = (signal.SIGTERM,) if HANGUP is None else (signal.SIGTERM, HANGUP)
SAME_SIGNAL_SECONDS = 5.0
"""Seconds within which a second signal is the first again: `timeout`, shells and terminals send two."""


@contextmanager
def ending_signals() -> Iterator[list[int]]:
    """A block in which SIGTERM and SIGHUP do what Ctrl-C does; yields those that came, and SIGINT.

    A signal that is ignored, as under nohup, stays so.
    """
    received: list[int] = []
    last = -SAME_SIGNAL_SECONDS

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last
        again = time.monotonic() - last < SAME_SIGNAL_SECONDS
        last = time.monotonic()
        received.append(number)
        if number == HANGUP:
            _silence_lost_terminal()
        on_interrupt = signal.getsignal(signal.SIGINT)
        if again:
            return
        if not callable(on_interrupt):  # Ctrl-C is ignored, as in the background of a script
            raise KeyboardInterrupt
        on_interrupt(signal.SIGINT, frame)

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (*ENDING_SIGNALS, signal.SIGINT)}
    heard = {number: end for number in ENDING_SIGNALS if before[number] != signal.SIG_IGN}
    if before[signal.SIGINT] is signal.default_int_handler:
        heard[signal.SIGINT] = interrupt
    for number, handler in heard.items():
        signal.signal(number, handler)
    try:
        yield received
    finally:
        for number in heard:
            signal.signal(number, before[number])


@contextmanager
def repeated_interrupts() -> Iterator[None]:
    """A block in which an interrupt that a library prints, and goes on, is raised once more.

    hf_xet does so with its callback for progress, Python with what destructors raise. Where Ctrl-C is
    ignored, the interrupt of another signal comes at the end of the block.
    """
    timers: list[threading.Timer] = []
    show, show_unraisable = sys.excepthook, sys.unraisablehook

    def repeat() -> None:
        timers.append(threading.Timer(0.1, _thread.interrupt_main))
        timers[-1].start()

    def printed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            repeat()
        else:
            show(kind, error, trace)

    def ignored(event: Any) -> None:
        if issubclass(event.exc_type, KeyboardInterrupt):
            repeat()
        else:
            show_unraisable(event)

    sys.excepthook, sys.unraisablehook = printed, ignored
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = show, show_unraisable
        for timer in timers:
            timer.cancel()
    if timers:
        raise KeyboardInterrupt


def ignore_ending_signals() -> None:
    """Ignore further ones: the process ends, and the second of two would take its exit status away."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _silence_lost_terminal() -> None:
    """Let outputs to a terminal that is gone go nowhere: a failed write would look like a failed work."""
    for output in (1, 2):
        with suppress(OSError):  # an output may be closed
            if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)
