"""What a person sees while work runs: progress bars, tables, messages; and the log file kept beside the
results.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from selfpos.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

log = logging.getLogger("selfpos")

LIBRARIES = ("mteb", "sentence_transformers", "transformers", "datasets", "huggingface_hub")


def is_first() -> bool:
    """Whether this process speaks for all: it is on its own, or the first of those that torchrun or
    accelerate started.
    """
    return os.environ.get("RANK", "0") == "0"


def screen() -> Console:
    """A console on standard error, where progress and messages go; standard output is kept for results."""
    from rich.console import Console

    # A notebook gets lines: a widget needs another package, and what passes for its terminal keeps each state
    # of a bar.
    terminal = False if Console().is_jupyter else None
    return Console(
        file=sys.stderr, highlight=False, quiet=not is_first(), force_jupyter=False, force_terminal=terminal
    )


def warn(message: str) -> None:
    """Log a warning and show it in yellow."""
    log.warning(message)
    tell(message, "yellow")


def tell(message: str, style: str | None = None) -> None:
    """Show a message as it is: what looks like markup, or would steer the terminal, is printed."""
    screen().print(printable(message), style=style, markup=False)


class Bar:
    """One running progress bar. `advance(1, loss=0.31)` moves it and shows the newest numbers beside it."""

    def __init__(self, progress: Progress, task: TaskID, room: int | None = None) -> None:
        self._progress, self._task, self._room = progress, task, room
        self._numbers: dict[str, float | str] = {}

    def advance(self, amount: float = 1, **numbers: float | str) -> None:
        self._numbers |= numbers
        shown = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self._numbers.items()
        )
        shown = _cut(shown, self._room)
        self._progress.update(self._task, advance=amount, numbers=shown)


def _cut(text: str, room: int | None) -> str:
    """`text` with an ellipsis where it is longer than `room` characters."""
    return text if room is None or len(text) <= room else f"{text[: max(room - 1, 0)]}…"


@contextmanager
def progress(title: str, total: float | None, *, unit: str = "step") -> Iterator[Bar]:
    """Show a progress bar titled `title` while the block runs.

    `unit` is `"bytes"` for sizes, else the word after the count.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    # In a narrow terminal the bar gives way first, then the title and the end of the numbers.
    console = screen()
    narrow = console.width < 100
    title = _cut(title, 22 if narrow else None)
    width_of_count = 15 if unit == "bytes" else 2 * len(str(total)) + len(unit) + 2
    room = console.width - len(title) - width_of_count - 20 if narrow else None  # bar and time left have 20
    whole = Column(no_wrap=True)
    count: ProgressColumn = (
        DownloadColumn(table_column=whole) if unit == "bytes" else MofNCompleteColumn(table_column=whole)
    )
    columns = [
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=24),
        count,
        TextColumn("" if unit == "bytes" else unit, table_column=whole),
        *([] if narrow else [TimeElapsedColumn(table_column=whole)]),
        TextColumn("left", table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("[cyan]{task.fields[numbers]}", table_column=whole),
    ]
    with Progress(*columns, console=console, refresh_per_second=4) as bars:
        task = bars.add_task(title, total=total, numbers="")
        yield Bar(bars, task, room)
        if total is not None and math.isclose(bars.tasks[0].completed, total, rel_tol=1e-6):
            bars.update(task, completed=total)  # shares of bytes add up to a little less


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> str:
    """A table as text for standard output: first column left, the others right.

    Cells may carry rich markup such as `[bold]`.
    """
    import io
    import shutil

    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 200
    out = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, highlight=False, force_jupyter=False
    )
    out.print(table)
    return out.file.getvalue().rstrip("\n")  # type: ignore[attr-defined]


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, rules: Sequence[str] | None = None
) -> str:
    """A Markdown table. `rules` are the marks below the header, such as `---:` for a column of numbers."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    lines.insert(1, "|" + "|".join(rules or ["---"] * len(header)) + "|")
    return "\n".join(lines)


class _OneLine(logging.Formatter):
    """One line for each message; a traceback has its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


class _LogFile(logging.FileHandler):
    """Raises where the disk refuses a line: Python's own prints a traceback, and goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging calls it so)
        raise


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append everything logged under `selfpos` while the block runs to the file `path`, one line each with
    its time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def quiet_process() -> None:
    """Silence the libraries until this process ends, for a verb of the command line; call it before they are
    imported. Errors still show.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def quiet_libraries(*, hide_warnings: bool = False) -> Iterator[None]:
    """No progress bars of transformers and datasets, and no messages below an error of any library, while the
    block runs; then all as before.

    `hide_warnings` hides Python's own warnings as well.
    """
    import datasets
    import transformers  # noqa: F401 - sets its logger's level when it is imported
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in LIBRARIES]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    try:
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            if hide_warnings:
                warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars[0]:
            transformers_logging.enable_progress_bar()
        if bars[1]:
            datasets.enable_progress_bars()


def in_words(seconds: float) -> str:
    """A time of that order: seconds, minutes or hours."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.1f} seconds"
