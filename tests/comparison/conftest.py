from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selfpos.storage.run_folder import RunFolder
from tests.helpers.scored_runs import write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Write a run of five models below `tmp_path`, under a name."""
    return lambda name="run", **settings: write_run(tmp_path / name, **settings)
