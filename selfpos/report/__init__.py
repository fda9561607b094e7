"""Figures, tables and HTML reports, made from what lies on disk."""

from __future__ import annotations

from pathlib import Path

from selfpos.report.of_run import read_run
from selfpos.report.page import write_report
from selfpos.storage.run_folder import RunFolder

__all__ = ["read_run", "report_of_run", "write_report"]


def report_of_run(folder: RunFolder) -> Path:
    """Write `report.html` of the run in `folder`, in place of an older one; return its path.

    Raises SelfposError where `folder` is no run, OperationError where the disk refuses.
    """
    return write_report(read_run(folder), folder.report, replace=True)
