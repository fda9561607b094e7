"""A fine-tune of the tiny base."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.models import make_specialist


@pytest.fixture
def tuned(tiny_base: Path, tmp_path: Path) -> Path:
    return make_specialist(tiny_base, tmp_path / "tuned", seed=5, size=0.006)
