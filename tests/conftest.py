"""Fixtures shared by all rooms: a tiny real sentence-transformers model, and the optional folder of real data
sets beside the checkout.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.command import CommandLine
from tests.helpers.files import SHARED_DATA
from tests.helpers.models import make_specialist, make_tiny_model

pytest_plugins = ["tests.helpers.budget"]

# The suite never touches a network: set before any library reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run in two workers: more threads than cores only slow each other down.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell starts what it puts in the background with Ctrl-C ignored, which children inherit; tests of Ctrl-C
# need it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files of tests need not outlive a failing machine, and a disk takes 5 ms to say that they would.
os.fsync = lambda _: None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Garbage collections leave the libraries out, also while these are imported: every training forces some,
    .3 s each.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session")
def text_data() -> Path:
    """The folder of real text data sets; tests that need it are skipped where it is absent."""
    folder = SHARED_DATA / "text"
    if not folder.is_dir():
        pytest.skip(f"no real data sets at {folder} (set SELFPOS_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random sentence-transformers folder, the θ0 of tests. Read-only: copy before changing it."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def tiny_specialists(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of the same architecture around `tiny_base`, each moved in a random direction."""
    folder = tmp_path_factory.mktemp("specialists")
    return [
        make_specialist(tiny_base, folder / name, seed=seed)
        for seed, name in enumerate(["alpha", "beta", "gamma"], start=1)
    ]


@pytest.fixture(scope="session")
def selfpos() -> Iterator[CommandLine]:
    """The command line in a process that stays warm: `selfpos("merge", …)` gives exit status and output."""
    running = CommandLine()
    # At set-up, not in the first test; garbage collections leave the libraries out, as above.
    libraries = "import mteb, peft, sentence_transformers, torch"
    running.python(f"import gc; gc.disable(); {libraries}; gc.enable(); gc.freeze()")
    yield running
    running.close()
