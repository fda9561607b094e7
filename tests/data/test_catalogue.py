"""Every shape of the table in docs/data.md is read, or refused, as it says there."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.data_shapes import PAGE, table_of
from tests.helpers.shapes import SHAPES, Shape, outcome


@pytest.mark.parametrize("shape", [shape for _, shape in SHAPES], ids=lambda shape: shape.title)
def test_a_shape_is_read_right_or_refused(shape: Shape, tmp_path: Path) -> None:
    assert outcome(shape, tmp_path) == ("refused" if isinstance(shape.wanted, str) else "read")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [shape for _, shape in SHAPES], ids=lambda shape: shape.title)
def test_a_stream_reads_the_same(shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = outcome(shape, tmp_path / "data", streaming=True)
    assert found == ("refused" if isinstance(shape.wanted, str) else "read")


def test_the_docs_have_the_table_of_these_shapes() -> None:
    assert len(SHAPES) >= 60
    assert table_of(
        {shape.title: "refused" if isinstance(shape.wanted, str) else "read" for _, shape in SHAPES}
    ) in (PAGE.read_text(encoding="utf-8"))
