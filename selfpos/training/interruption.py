"""Ctrl-C in a training: noted, for the training to stop at the end of a step, where it can be gone on from."""

from __future__ import annotations

import signal
import threading
from typing import Any

import selfpos.processes as processes
from selfpos.console import screen


class Interruption:
    """A block in which Ctrl-C is `noted`, for a training to stop where it can go on from. What has not stopped by the block's end stops there.

    A second Ctrl-C stops a process on its own at once. One of several waits for the others, and is told twice anyway: by terminal and launcher.
    """

    def __init__(self) -> None:
        self.noted = False
        self._before: Any = None

    def __enter__(self) -> Interruption:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) != signal.SIG_IGN
        ):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self.noted and kind is None:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        if self.noted and processes.count() == 1:
            raise KeyboardInterrupt
        if not self.noted:
            screen().print("stopping after this step, which will be kept; Ctrl-C again stops at once")
        self.noted = True
