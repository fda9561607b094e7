"""Figures, tables and the HTML report of a run, made from the files in its folder."""

from __future__ import annotations

from selfpos.report.page import write_report

__all__ = ["write_report"]
