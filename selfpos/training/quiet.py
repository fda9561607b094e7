"""Keeping other libraries' bars and notices off the screen while ours are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No progress bars, and no messages below an error, from transformers, sentence-transformers and datasets while the block runs."""
    import logging

    import datasets
    import transformers
    from transformers.utils import logging as transformers_logging

    library = logging.getLogger("sentence_transformers")
    levels = transformers_logging.get_verbosity(), datasets.logging.get_verbosity(), library.level
    bars = transformers_logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(levels[0])
        datasets.logging.set_verbosity(levels[1])
        library.setLevel(levels[2])
        if bars[0]:
            transformers_logging.enable_progress_bar()
        if not bars[1]:
            datasets.enable_progress_bars()
