from __future__ import annotations

import logging
import warnings

import pytest

from selfpos.console import LIBRARIES, progress, quiet_libraries


def test_a_bar_of_80_columns_keeps_its_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with progress("scoring merged", 3, unit="tasks") as bar:
        bar.advance(3, task="Duplicates", score="83.34")
    (line,) = capsys.readouterr().err.splitlines()
    assert "3/3 tasks 0:00:00 left 0:00:00 task Duplicates  score 83.34" in line
    assert len(line) <= 80


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
