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

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
ENDING_SIGNALS = (signal.SIGTERM,) if HANGUP is None else (signal.SIGTERM, HANGUP)
SAME_SIGNAL_SECONDS = 5.0
"""Seconds within which a second signal is the first again: `timeout`, shells and terminals send two."""


@contextmanager
def ending_signals() -> Iterator[list[int]]:
    """A block in which SIGTERM and SIGHUP do what Ctrl-C does; yields those that came.

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

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_in_callbacks() -> Iterator[None]:
    """A block whose libraries print what their callbacks raise, and go on: an interrupt is raised once more.

    hf_xet does so with the callback that shows the progress of an upload. Where Ctrl-C is ignored, the
    interrupt of another signal comes at the end of the block.
    """
    timers: list[threading.Timer] = []
    show = sys.excepthook

    def repeat(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            show(kind, error, trace)
            return
        timers.append(threading.Timer(0.1, _thread.interrupt_main))
        timers[-1].start()

    sys.excepthook = repeat
    try:
        yield
    finally:
        sys.excepthook = show
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
