from __future__ import annotations

import logging
import warnings

import pytest

from selfpos.console import LIBRARIES, progress, quiet_libraries


@pytest.mark.parametrize(
    ("title", "numbers", "shown"),
    [
        (
            "scoring merged",
            {"score": "83.34", "task": "Duplicates"},
            "3/3 tasks left 0:00:00 score 83.34  task Duplicates",
        ),
        (
            "scoring sentence-transformers/all-MiniLM-L6-v2",
            {"score": "73.55", "task": "PythonDocsRetrieval"},
            "3/3 tasks left 0:00:00 score 73.55  task Pytho",
        ),
    ],
)
def test_a_bar_of_80_columns_keeps_its_numbers(
    title: str,
    numbers: dict[str, str],
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with progress(title, 3, unit="tasks") as bar:
        bar.advance(3, **numbers)
    (line,) = capsys.readouterr().err.splitlines()
    assert shown in line and "━━" in line
    assert len(line) <= 80


def test_a_bar_of_shares_ends_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with progress("merging", 1e9, unit="bytes") as bar:
        for _ in range(3):
            bar.advance(0.99999999 * 1e9 / 3)
    assert "╸" not in capsys.readouterr().err


@pytest.mark.parametrize("hide", [True, False])
def test_libraries_are_quiet_in_the_block_and_as_before_after_it(hide: bool) -> None:
    import datasets
    import transformers

    transformers.logging.set_verbosity_info()
    loggers = [logging.getLogger(name) for name in LIBRARIES]
    before = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(ZeroDivisionError), quiet_libraries(hide_warnings=hide):
                assert [logger.getEffectiveLevel() for logger in loggers] == [logging.ERROR] * len(loggers)
                assert transformers.logging.get_verbosity() == logging.ERROR
                assert datasets.are_progress_bars_disabled()
                assert not transformers.utils.logging.is_progress_bar_enabled()
                warnings.warn("mind this", UserWarning, stacklevel=1)
                raise ZeroDivisionError
        assert len(seen) == (0 if hide else 1)
        assert [logger.level for logger in loggers] == before
        assert not datasets.are_progress_bars_disabled()
        assert transformers.utils.logging.is_progress_bar_enabled()
    finally:
        transformers.logging.set_verbosity_warning()
