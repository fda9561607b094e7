"""Other people's progress bars and notices, kept off the screen where ours are shown."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("mteb", "sentence_transformers", "transformers", "datasets", "huggingface_hub")


def quiet_process() -> None:
    """Silence the libraries until this process ends, for a verb of the command line; call it before they are imported. Errors still show."""
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
    """No progress bars of transformers and datasets, and no messages below an error of any library, while the block runs; then all as before.

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
