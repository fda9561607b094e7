from __future__ import annotations

import logging
import warnings

import pytest

from selfpos.console import LIBRARIES, quiet_libraries


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
